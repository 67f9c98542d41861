#!/bin/sh
# The destination's part of stock.py: IMAGES ADDRESS/BITS DEVICE LOCK HERE WORKLOADS; the images come as tar on stdin.
# Prints the seconds since boot when unpacked and when restored.
set -eu
images=$1 address=$2 device=$3 lock=$4 here=$5 workloads=$6
tar -x -C "$images"
read -r unpacked _ </proc/uptime
ip address add "$address" dev "$device"
# Beside the restore, not before it: until the filter is lifted nothing gets in anyway.
python3 -I -S "$workloads/announce.py" "$device" "${address%/*}" &
criu restore --images-dir "$images" --restore-detached --tcp-established --network-lock "$lock" \
    --action-script "$here/stock_hook.sh" --log-file restore.log || {
    tail -n 15 "$images/restore.log" >&2
    exit 1
}
read -r restored _ </proc/uptime
wait
echo "$unpacked $restored"
