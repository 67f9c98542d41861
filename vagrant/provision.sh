#!/usr/bin/env bash
# Makes this machine, a Debian one as Vagrant has started it, the host of the lab that is named: provision.sh HOST
#
# Packages and CRIU come from Debian, the rest from what the Vagrantfile has put into /tmp: the project, and keys with
# which the machines know each other. It may be run again (vagrant provision).
set -euo pipefail

host=$1
source=/opt/migrate-source
export DEBIAN_FRONTEND=noninteractive

say() { echo "provision: $*"; }

say "unpacking the project"
rm -rf "$source"
mkdir -p "$source"
tar -xzf /tmp/migrate-source.tar.gz -C "$source"

packages=(binutils curl debian-archive-keyring iproute2 kmod libnftables1 nftables nginx-light openssh-client
    openssh-server patchelf procps python3 python3-venv redis-server tcpdump)
missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    apt-get -q update >/dev/null
    apt-get -q install -y --no-install-recommends "${missing[@]}" >/dev/null
    # The servers are for you to start.
    systemctl -q disable --now nginx redis-server
fi

say "network of $host"
cat >/usr/local/sbin/migrate-lab-network <<EOF
#!/bin/sh
# The lab's addresses. The first interface is Vagrant's own; see migrate/lab/vm/routed.py.
cd "$source" || exit 1
first=\$(for path in /sys/class/net/*; do echo "\$(cat "\$path/ifindex") \${path##*/}"; done | sort -n |
    awk '\$2 != "lo" { print \$2 }')
set -- \$first
shift
exec /usr/bin/python3 -S -m migrate.lab.vm.routed $host "\$@"
EOF
chmod +x /usr/local/sbin/migrate-lab-network
cat >/etc/systemd/system/migrate-lab-network.service <<EOF
[Unit]
Description=Addresses of the lab
After=network-pre.target systemd-udev-settle.service
Before=ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/migrate-lab-network
[Install]
WantedBy=multi-user.target
EOF
# CRIU writes down at its first run what the kernel can do, and does not look again.
printf '%s\n' tun tcp_diag udp_diag unix_diag netlink_diag af_packet_diag >/etc/modules-load.d/migrate-lab.conf
systemctl -q daemon-reload
systemctl -q restart systemd-modules-load || true
systemctl -q enable migrate-lab-network
systemctl restart migrate-lab-network

say "keys"
keys=/tmp/migrate-keys
install -d -m 700 /root/.ssh
install -m 600 "$keys/user" /root/.ssh/id_ed25519
install -m 644 "$keys/user.pub" /root/.ssh/id_ed25519.pub
install -m 600 "$keys/user.pub" /root/.ssh/authorized_keys
rm -f /etc/ssh/ssh_host_*
install -m 600 "$keys/$host" /etc/ssh/ssh_host_ed25519_key
install -m 644 "$keys/$host.pub" /etc/ssh/ssh_host_ed25519_key.pub
: >/root/.ssh/known_hosts
for file in "$keys"/*.pub; do
    name=$(basename "$file" .pub)
    addresses=$(awk -v name="$name" '$2 == name { print $1 }' /etc/hosts | paste -sd, -)
    [ "$name" = user ] || echo "$name${addresses:+,$addresses} $(cut -d ' ' -f 1,2 "$file")" >>/root/.ssh/known_hosts
done
systemctl -q restart ssh
rm -rf "$keys"

case $host in origin | destination) ;; *) say "done"; exit 0 ;; esac

say "migrate"
[ -x /opt/migrate/bin/python ] || python3 -m venv --system-site-packages /opt/migrate
pip=(/opt/migrate/bin/python -m pip install -q --disable-pip-version-check)
if /opt/migrate/bin/python -c 'import google.protobuf, paramiko, pyroute2, rich, wheel' 2>/dev/null; then
    pip+=(--no-index --no-build-isolation) # a box that has all of it needs no way to a registry
fi
"${pip[@]}" "$source/plugin" "$source"
for name in migrate migrate-agent migrate-criu tcpcp; do ln -sf "/opt/migrate/bin/$name" "/usr/local/bin/$name"; done
if ! /opt/migrate/bin/python -m migrate.criu.probe >/dev/null 2>&1; then
    say "CRIU"
    /opt/migrate/bin/migrate-criu /opt/migrate-criu
    /opt/migrate/bin/python -m migrate.criu.probe
    ln -sf /opt/migrate/bin/criu /usr/local/bin/criu
fi
say "done: $(migrate --version), CRIU $(criu --version | sed -n 's/^Version: //p')"
