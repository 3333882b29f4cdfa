"""Accounts of people and tokens of programs: who a request comes from, and what that one may do."""

from andon.line.accounts.accounts import Accounts as Accounts
from andon.line.accounts.accounts import read as read
from andon.line.accounts.log_in import LogIn as LogIn
from andon.line.accounts.log_in import LogInFailed as LogInFailed
from andon.line.accounts.records import Account as Account
from andon.line.accounts.records import Token as Token
