"""``vaultauthz doctor``: what is wrong between the configuration and Vault, and what mends it.

``examine`` asks Vault and gathers facts, ``rules`` are pure functions from facts to
findings, ``show`` prints both.
"""

from vaultauthz.doctor.command import run
from vaultauthz.doctor.examine import DoctorOptions

__all__ = ["DoctorOptions", "run"]
