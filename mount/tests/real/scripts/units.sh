#!/usr/bin/env bash
# The README's installation with systemd, as root of a machine on which systemd is the first process.
set -euxo pipefail
export HOME=/root
cd /root
useradd --system flexfs
install -d -o flexfs -m 0700 /var/lib/flexfs
mkdir -p .flexfs/configure
admin.flexfs init --credsFile .flexfs/configure/creds --adminAddr 127.0.0.1:7440 --dbFolder /var/lib/flexfs/admin
chown -R flexfs /var/lib/flexfs/admin
admin.flexfs init systemd --now --user flexfs --startFlags "--dbFolder /var/lib/flexfs/admin"
configure.flexfs create block-store --name hosted
token() { sed -n 's/.*"token": *"\(flex[a-z]*_[^"]*\)".*/\1/p'; }
(umask 077; configure.flexfs --json create meta-store --name meta1 --address 127.0.0.1:7441 | token >meta.token)
(umask 077; configure.flexfs --json create volume --name genomes --metaStore meta1 --blockStore hosted | token >volume.token)
meta.flexfs init creds --adminAddr 127.0.0.1:7440 --credsFile /var/lib/flexfs/creds --tokenFile meta.token
chown flexfs /var/lib/flexfs/creds
meta.flexfs init systemd --now --user flexfs --startFlags "--dbFolder /var/lib/flexfs/meta --credsFile /var/lib/flexfs/creds"
mount.flexfs init creds --adminAddr 127.0.0.1:7440 --tokenFile volume.token genomes
mount.flexfs start genomes /mnt/genomes

pid_of() { systemctl show "$1" -p MainPID --value; }
for unit in flexfs-admin flexfs-meta; do
  systemctl is-active "$unit"
  [[ $(ps -o user= -p "$(pid_of "$unit")") == flexfs ]]
  grep -q '^CapBnd:.*0000000000000000$' "/proc/$(pid_of "$unit")/status"
  # "exposure" of 10 is a service that nothing is taken from.
  exposure=$(systemd-analyze security "$unit" --no-pager | sed -n 's/.*Overall exposure level.*: \([0-9.]*\) .*/\1/p')
  [[ ${exposure%.*} -lt 3 ]]
done
cp -r /etc/apt /mnt/genomes/apt
sync -f /mnt/genomes

# Killed: systemd starts it again, and the mount goes on.
for unit in flexfs-meta flexfs-admin; do
  kill -9 "$(pid_of "$unit")"
  timeout 60 bash -c "until [[ \$(systemctl show $unit -p NRestarts --value) == 1 ]] && systemctl -q is-active $unit; do sleep 0.1; done"
  timeout 60 diff -r /etc/apt /mnt/genomes/apt
  echo more >>/mnt/genomes/more
done
# Restarted and stopped by the operator: cleanly.
timeout 60 systemctl restart flexfs-meta flexfs-admin
timeout 60 diff -r /etc/apt /mnt/genomes/apt
timeout 60 umount /mnt/genomes
timeout 60 systemctl stop flexfs-meta flexfs-admin
for unit in flexfs-meta flexfs-admin; do
  [[ $(systemctl show "$unit" -p Result --value) == success ]]
done
echo "all units were seen working"
