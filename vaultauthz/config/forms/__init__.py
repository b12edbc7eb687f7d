"""The forms of ``inject``: a file for each, which nothing outside of this folder knows.

A form's file has a class, an ``Injection``: the keys that it is written with, and what they come
to on a request. And it has ``FORM``, its key in an entry of ``inject``, behind which stands the
table of its own keys. ``config.inject`` finds the files and their ``FORM``. What gateways can
carry is theirs to say, of what a form sets: ``config.sds_slots`` of Envoy by SDS,
``config.kong_logs`` and ``kong_config`` of Kong. So neither a form nor a gateway touches the other.
"""
