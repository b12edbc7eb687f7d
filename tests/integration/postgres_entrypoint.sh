#!/bin/sh
# What the entrypoint of PostgreSQL's image does, and as whom: root hands the volume to the user postgres and reads the
# password; a database that is not there yet is made and laid out while it listens on a unix socket only.
set -eu
data=/var/lib/postgresql/data
as_postgres="setpriv --reuid=70 --regid=70 --clear-groups --inh-caps=-all"
run=$(mktemp -d)
password=$(cat "$POSTGRES_PASSWORD_FILE")
chown postgres "$run"
if [ ! -s $data/PG_VERSION ]; then
    chmod 0700 $data
    find $data \! -user postgres -exec chown postgres '{}' +
    (umask 077; printf '%s' "$password" > "$run/password"; chown postgres "$run/password")
    $as_postgres initdb -D $data -U postgres --auth-host=scram-sha-256 --auth-local=trust --encoding=UTF8 --locale=C \
        --no-sync --pwfile="$run/password"
    rm "$run/password"
    $as_postgres postgres -D $data --listen_addresses= --unix_socket_directories="$run" --fsync=off &
    temporary=$!
    until $as_postgres psql -h "$run" -U postgres -c 'SELECT 1' > /dev/null 2>&1; do sleep 0.1; done
    for file in /docker-entrypoint-initdb.d/*; do
        $as_postgres psql -v ON_ERROR_STOP=1 -h "$run" -U postgres -f "$file"
    done
    $as_postgres sh -c "kill -INT $temporary"
    wait $temporary
fi
exec $as_postgres --pdeathsig=KILL "$@" -D $data '--listen_addresses=*' --unix_socket_directories="$run" --fsync=off
