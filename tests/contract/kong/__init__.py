r"""A stand-in for Kong 3.9.3 that drives real plugin servers over their real unix sockets.

    with Kong(server, [Route("pay", "/pay", {"upstream": "payments"})], workers=2) as kong:
        answer = kong.request("GET", "/pay/1", headers=[("X-Odd", b"\xff")], consumer="shop")
        assert answer.verdict is Verdict.PROXIED
        assert answer.upstream.header("authorization") == "Bearer ..."
        assert answer.log.wait().error is None

`server` is a `Server`: the commands and the socket that kong.conf would name (`stock_server` makes one for
kong-python-pluginserver). Each `Route` has its plugin's config and a recording `Service` behind it.
`kong.kill_server()`, `.wait_for_server()`, `.reload()`, `.configure(route, config)` are what happens to a
Kong; `Settings` are its numbers; `adversary` is whoever else is on the socket. What the stand-in does not
know of Kong raises `NotEmulated` in the test, it never guesses.

Facts are from Kong's `kong/runloop/plugin_servers` (plugin.lua, process.lua, rpc/mp_rpc.lua, rpc/pb_rpc.lua)
and `kong/pdk`; test_stand_in_stock.py shows with the stock server what was seen with the real Kong.

# The life of a server

`query_cmd` runs through the shell when Kong starts and prints JSON, and nothing else, on standard output:

    {"Protocol": "ProtoBuf:1", "Plugins": [{"Name": "vault-authz", "Phases": ["access", "log"], "Priority": 900,
      "Version": "1.0.0", "Schema": {"name": "vault-authz", "fields": [{"config": {"type": "record", "fields": [
        {"upstream": {"type": "string", "required": true}}]}}]}}]}

A list instead of the object means MsgPack:1. Only the first plugin counts. `start_cmd` runs as
`sh -c "exec ..."`, again when it ended, at most once a second; its output goes to Kong's log; **its
environment is empty** (nginx keeps none for its workers; `nginx_main_env` adds to it). On a reload a second
server starts on the same socket path while the first still runs. What a worker 0 that ends has started gets
SIGTERM and, 0.14 s later, SIGKILL (`tree`, which is Kong's master and worker 0 as real processes).

# ProtoBuf:1 on the wire

Messages are those of proto/vaultauthz/kong.proto (`vaultauthz._pb.kong_pb2`). A *frame* is a length as four
bytes, little-endian, and so many bytes of message; Kong sends the two in two pieces. A connection carries
one call at a time and then waits in its worker's pool (up to 256, 60 s) for the next one.

Starting an instance, once for each worker and plugin configuration:

    Kong:    frame RpcCall{sequence: 2, cmd_start_instance: {name: "vault-authz", config: '{"upstream": ...}'}}
    server:  frame RpcReturn{sequence: 2, instance_status: {instance_id: 1234}}

`config` is JSON with Kong's own keys among the plugin's: __key__, __seq__, __ws_id, __plugin_id, route_id.
The same for `cmd_close_instance`; its answer's `instance_status` is not read. A refusal cannot be said:
closing the connection makes the request a 500.

An event, once for each request and phase ("access"; "log" after the answer went out):

    Kong:    frame RpcCall{sequence: 7, cmd_handle_event: {instance_id: 1234, event_name: "access"}}
    server:  frame "kong.client.get_consumer"           the method's name, no message around it
             frame ""                                   its argument; Empty is no bytes
    Kong:    frame Consumer{id: ..., username: "shop"}  nil is a frame of length 0
    server:  frame "kong.service.request.set_headers"
             frame Struct{fields: [{key: "Authorization", value: {string_value: "Bearer ..."}}]}
    Kong:    frame ""                                   a method that gives Empty
    server:  frame ""                                   the end of the event
             frame RpcReturn{sequence: 7}

`protobuf_values.SIGNATURES` names every method with what it takes and gives. Instead of the end there may be

    server:  frame "kong.response.exit"
             frame ExitArgs{status: 503, body: '{"error":...}', headers: Struct}

and then Kong sends nothing: it answers its client and closes the connection. That is the end of the event.

- An instance id that the server does not know (it was restarted): close the connection, before anything is
  sent. Kong then forgets all of the plugin's instances, in every worker, starts this one anew and runs the
  event again. Closing for any other reason does the same, and so for ever (`Verdict.ENDLESS`).
- Silence for 60 s, a wrong sequence, bytes that are no message, an unknown method, arguments that Lua
  rejects: the client gets 500, Kong closes the connection.
- Fields that are left out have their defaults: `request.get_headers` and `.get_query` need `Int{v: 100}`
  (0 raises); `exit` without a body sends none, with its headers. In a Struct `false` vanishes and null is
  the text "NULL_VALUE". Kong sends nil inside a Value as null_value 1.
- Strings may hold any bytes: a client's headers and query, also the path (`%ff` arrives decoded).
- In "log" the request is gone. What works: kong.log.*, log.serialize (JSON), request.get_header(s),
  response.get_status/get_header(s)/get_source, ctx.shared, nginx.get_ctx, client.get_consumer and
  get_credential, router.*. All else raises; nothing of it reaches the client.

# MsgPack:1 on the wire

MessagePack-RPC without frames: `[0, id, "plugin.HandleEvent", [{InstanceId, EventName}]]` is answered by
`[1, id, nil, {EventId, Data: {Method, Args}}]` for each PDK call, which Kong answers with a call of its own,
`[0, id, "plugin.Step", [{EventId, Data}]]`, maybe on another connection, until Data is "ret". Steps have
other names for some methods (`wire_msgpack.STEPS`); Data is left out for nil. `exit` gets no step. What
Lua returns as an error (a closed connection or a timeout between messages, the error field) is logged and
**the request is proxied**; what it raises (half a message, a wrong id, arguments it rejects) is a 500.
Errors that hold "no plugin instance" start the instances anew.
"""

from tests.contract.kong.answer import Answer, Trace, Verdict
from tests.contract.kong.kong import Kong
from tests.contract.kong.process import StartFailed
from tests.contract.kong.routes import Consumer, Guard, Route, Server, Settings
from tests.contract.kong.stock import stock_server
from tests.contract.kong.upstream import Received, Service

__all__ = [
    "Answer",
    "Consumer",
    "Guard",
    "Kong",
    "Received",
    "Route",
    "Server",
    "Service",
    "Settings",
    "StartFailed",
    "Trace",
    "Verdict",
    "stock_server",
]
