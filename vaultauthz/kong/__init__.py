"""Kong: its PDK ↔ ours, and a plugin server of our own that speaks ProtoBuf:1.

``gate`` is the plugin. It is written as generators that ask for PDK calls and get their
results, so that it knows of no socket: ``connection`` drives them over ProtoBuf:1 in our own
server, ``stock`` over the `kong` object of Kong's kong-python-pluginserver. ``door`` is what
a server is made with, and its life; ``supervise`` is what Kong itself starts.
"""
