"""Drop folder of a station: every image in it is judged once."""

from andon.line.inbox.inbox import Inbox as Inbox
