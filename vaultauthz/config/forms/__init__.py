"""The forms of ``inject``: a file for each, which nothing outside of this folder knows.

A form's file has a class, an ``Injection``: the keys that it is written with, and what they come
to on a request. And it has ``FORM``, its key in an entry of ``inject``, behind which stands the
table of its own keys. ``config.inject`` finds the files and their ``FORM``. What gateways can
carry is theirs to say, of what a form sets: ``config.sds_slots`` of Envoy by SDS,
``config.kong_logs`` and ``kong_config`` of Kong. So neither a form nor a gateway touches the other.
"""

from __future__ import annotations

from vaultauthz.config.keys import Key, Section
from vaultauthz.core.injection import Injection


def of_keys(form: type[Injection], text: str, *keys: Key) -> Key:
    """``FORM`` of one that is read by the table of its keys alone."""
    return Key(form.form, Section(form, text, *keys, secretive=True).reader())
