# Run by image.sh in namespaces of its own: tries the image whose files are in $ROOT as the user $IMAGE_USER.
fail() { printf 'image_try.sh: %s\n' "$*" >&2; exit 1; }
uid=${IMAGE_USER%:*} gid=${IMAGE_USER#*:} url=http://127.0.0.1:8080

ip link set lo up
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs -o "uid=$uid,gid=$gid,mode=0700" state "$ROOT/var/lib/mcp-gateway"
mount -o remount,bind,ro "$ROOT"

# As the image's user, with nothing that user could become more by.
inside() {
  env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/bin GATEWAY_HOST=0.0.0.0 DEMO_STATE_DIR=/var/lib/mcp-gateway \
    setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid chroot --userspec="$uid:$gid" --groups="$gid" "$ROOT" "$@"
}

inside touch /var/lib/mcp-gateway/x || fail "the volume cannot be written"
inside rm /var/lib/mcp-gateway/x
for place in /usr/local/bin /tmp /etc; do
  if inside touch "$place/x" 2>/dev/null; then fail "$place can be written"; fi
done
if inside mcp-gateway health 2>/dev/null; then fail "healthy without a gateway"; fi
log=$(mktemp)
inside mcp-gateway demo 2>"$log" &
until curl -sf "$url/ready" >/dev/null; do kill -0 $! 2>/dev/null || { cat "$log"; fail "it ended"; }; sleep 0.1; done

pid=$(pgrep -x mcp-gateway)
echo "uid and capabilities: $(awk '/^(Uid|CapEff|NoNewPrivs)/ { printf "%s %s ", $1, $2 }' "/proc/$pid/status")"
[[ $(awk '/^Uid/ { print $2 }' "/proc/$pid/status") == "$uid" ]] || fail "not its own user"
curl -sf "$url/health" && echo
answer=$(curl -sf "$url/api/mcp/filesystem" -H 'Content-Type: application/json' \
  -d '{"method":"call_tool","params":{"tool_name":"read_file","arguments":{"path":"/etc/hosts"}}}')
echo "$answer"
[[ $answer == *localhost* ]] || fail "the demo call"
inside mcp-gateway health >/dev/null || fail "the health check"
inside mcp-gateway health --ready || fail "the readiness check"
ls -la "$ROOT/var/lib/mcp-gateway"
kill -TERM "$pid"
wait %1 || fail "it did not stop cleanly: $?"
if inside mcp-gateway health 2>/dev/null; then fail "healthy after its end"; fi
echo "ok"
