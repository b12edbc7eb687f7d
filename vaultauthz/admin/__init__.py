"""Health, readiness, metrics and leases over HTTP, as JSON and as a page."""

from vaultauthz.admin.server import Admin, rehearse, see_that_it_fits
from vaultauthz.admin.view import AdminView, LeaseRow, Readiness, WaitingUpstream

__all__ = [
    "Admin",
    "AdminView",
    "LeaseRow",
    "Readiness",
    "WaitingUpstream",
    "rehearse",
    "see_that_it_fits",
]
