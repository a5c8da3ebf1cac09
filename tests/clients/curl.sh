#!/usr/bin/env bash
# curl: the forms in which clients speak HTTP, against a pool.
. "$(dirname "$0")/common.sh"
pool_up --hosts 1 --vms 1
C() { curl -sS --max-time 60 --noproxy '*' "$@"; }
call() { # METHOD ARGUMENT... -> methodCall
    printf '<?xml version="1.0"?><methodCall><methodName>%s</methodName><params>' "$1"; shift
    local a; for a; do printf '<param><value><string>%s</string></value></param>' "$a"; done
    printf '</params></methodCall>'
}
call session.login_with_password "$POOL_USER" "$POOL_PASSWORD" >"$WORK/login"
for type in text/xml application/x-www-form-urlencoded 'text/xml; charset=utf-8' application/json; do
    R=$(C -D "$WORK/head" -H "Content-Type: $type" --data-binary @"$WORK/login" "$POOL_URL/")
    has "login with Content-Type $type" '<name>Status</name><value>Success</value>' "$R"
done
S=$(grep -o 'OpaqueRef:[0-9a-f-]*' <<<"$R" | head -n 1)
has "the answer is text/xml, nothing behind it" '^content-type: text/xml$' "$(tr -d '\r' <"$WORK/head" | tr A-Z a-z)"
call VM.get_all "$S" >"$WORK/get_all"
for path in / /RPC2 /xmlrpc; do
    has "XML-RPC at $path" 'OpaqueRef:' "$(C --data-binary @"$WORK/get_all" "$POOL_URL$path")"
done
has "HTTP/1.0" 'OpaqueRef:' "$(C -0 --data-binary @"$WORK/get_all" "$POOL_URL/")"
has "chunked upload" 'OpaqueRef:' "$(C -H 'Transfer-Encoding: chunked' --data-binary @"$WORK/get_all" "$POOL_URL/")"
T0=$(date +%s%N)
has "Expect: 100-continue" 'OpaqueRef:' "$(C -H 'Expect: 100-continue' --expect100-timeout 20 --data-binary @"$WORK/get_all" "$POOL_URL/")"
[ $((($(date +%s%N) - T0) / 1000000)) -lt 10000 ] && ok "100 Continue was sent" || not_ok "100 Continue" "was waited out"
N=$(C -o "$WORK/o" -w '%{num_connects} ' --data-binary @"$WORK/get_all" "$POOL_URL/" \
    --next -sS --noproxy '*' -o "$WORK/o" -w '%{num_connects} ' --data-binary @"$WORK/get_all" "$POOL_URL/")
is "the second request opens no connection" "$N" "1 0 "
has "HTTPS with the pool's certificate" 'OpaqueRef:' "$(C --cacert "$POOL_CA" --data-binary @"$WORK/get_all" "$POOL_HTTPS_URL/")"
is "broken XML is HTTP 500" "$(printf '<methodCall><methodName>VM.get' | C -o "$WORK/o" -w '%{http_code}' --data-binary @- "$POOL_URL/")" 500
has "JSON-RPC 2.0" '"result": *\[' "$(C --data-binary "{\"jsonrpc\":\"2.0\",\"method\":\"VM.get_all\",\"params\":[\"$S\"],\"id\":7}" "$POOL_URL/jsonrpc")"
is "OPTIONS is answered" "$(C -X OPTIONS -o "$WORK/o" -w '%{http_code}' "$POOL_URL/")" 200
head -c 20000000 /dev/zero >"$WORK/zero"
is "a body over the limit is 413" "$(C -H 'Expect:' -o "$WORK/o" -w '%{http_code}' --data-binary @"$WORK/zero" "$POOL_URL/" 2>/dev/null)" 413
has "and the server lives on" 'OpaqueRef:' "$(C --data-binary @"$WORK/get_all" "$POOL_URL/")"
has "/metrics tells of the journal" '^drover_journal_commits_total [1-9]' "$(C "$POOL_URL/metrics")"
has "and of the mirror" '^drover_mirror_in_step [01]' "$(C "$POOL_URL/metrics")"
has "and of the hosts" '^drover_hosts_linked 1' "$(C "$POOL_URL/metrics")"
