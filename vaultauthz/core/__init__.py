"""The rules, pure: values in, values out.

Nothing in here reads a clock, opens a socket, starts a thread or draws a
random number; whoever calls passes the time and the jitter in. So every rule
can be tested by example and property, and simulated for a whole fleet.
"""
