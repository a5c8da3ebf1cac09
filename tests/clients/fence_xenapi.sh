#!/usr/bin/env bash
# fence_xenapi, Pacemaker's fence agent from Debian's fence-agents, unmodified: power of a VM by name and by uuid.
. "$(dirname "$0")/common.sh"
pool_up --hosts 2 --vms 2
fence() {
    OUT=$(timeout 120 /usr/sbin/fence_xenapi --session-url="$POOL_URL" --username="$POOL_USER" --password="$POOL_PASSWORD" \
        --power-timeout=60 --shell-timeout=30 "$@" 2>&1)
    STATUS=$?
}
fence -o list
is "list exits 0" $STATUS 0
has "list names vm1" ',vm1$' "$OUT"
UUID=$(grep ',vm1$' <<<"$OUT" | cut -d, -f1)
fence -o status -n vm1
has "a running VM is ON" 'Status: ON' "$OUT"
fence -o off -n vm1
is "off exits 0" $STATUS 0
fence -o status -n "$UUID"
has "it is OFF, by uuid" 'Status: OFF' "$OUT"
is "and says so by its exit status" $STATUS 2
fence -o on -n "$UUID"
is "on exits 0" $STATUS 0
fence -o reboot -n vm1
is "reboot exits 0" $STATUS 0
fence -o status -n vm1
has "it is ON again" 'Status: ON' "$OUT"
fence -o status -n no-such-vm
[ $STATUS -ne 0 ] && ok "an unknown name fails" || not_ok "an unknown name" "$OUT"
POOL_PASSWORD=wrong fence -o list
has "a wrong password is refused by name" 'SESSION_AUTHENTICATION_FAILED' "$OUT"
