#!/usr/bin/env bash
# A systemd of its own, over a copy-on-write view of this machine's files, without network; its only job is `units.sh`.
# Runs as first process of new pid, mount, uts, ipc, net and cgroup namespaces.
# $1: an empty folder, $2: where the built programs are, $3: the folder of this script. Ends with the job's status; what it says is in
# $1/out/log.
set -euo pipefail
root=$1/view/root
mkdir "$1"/{out,view}
mount -t tmpfs tmpfs "$1/view"
mkdir "$1"/view/{upper,scratch,root}
mount -t overlay -o "lowerdir=/,upperdir=$1/view/upper,workdir=$1/view/scratch" overlay "$root"
for program in admin configure meta mount; do
  cp "$2/$program-flexfs" "$root/usr/local/bin/$program.flexfs"
done
cp "$3/units.sh" "$root/usr/local/bin/units.sh"
mkdir -p "$root/out" "$root/mnt/genomes"
mount --bind "$1/out" "$root/out"
mount -t proc proc "$root/proc"
# What systemd would set there is the whole machine's.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -o ro -t sysfs sysfs "$root/sys"
mount -t cgroup2 none "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
ip link set lo up
cat >"$root/etc/systemd/system/job.service" <<'UNIT'
[Unit]
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
ExecStart=/usr/bin/bash /usr/local/bin/units.sh
StandardOutput=append:/out/log
StandardError=append:/out/log
TimeoutStartSec=120
UNIT
exec chroot "$root" env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=job.service --log-target=null
