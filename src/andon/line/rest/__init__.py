"""REST interface and pages of a line. FastAPI, Starlette and sse-starlette are imported here."""

from andon.line.rest.app import create_app as create_app
