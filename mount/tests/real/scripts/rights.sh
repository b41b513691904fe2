# Times: explicit ones are the owner's; now is for whoever may write, but only both at once.
old='2001-02-03 04:05:06.123456789'
touch f; chown 1001:1001 f; chmod 666 f
times() { stat -c '%x | %y' f | sed 's/ +0000//g'; }
set_old() { touch -d "$old" f; times; }
set_old
as 1002 touch -d '2010-01-01' f; times
as 1002 touch -a -d '2010-01-01' f
as 1002 touch -a f; times
as 1002 touch -m f; times
as 1002 touch f
[[ $(stat -c %Y f) -gt 1500000000 && $(stat -c %X f) -gt 1500000000 ]] && echo now
chmod 644 f
as 1002 touch f
as 1001 touch -m -d '2010-01-01 00:00:00.000000001' f; set_old
as 1001 touch -a -d '1999-12-31 23:59:59.999999999' f; times
touch -a f; [[ $(stat -c %X f) -gt 1500000000 ]] && times | cut -d'|' -f2
touch -d '1969-12-31 23:59:58.5' f; times
touch -d '2100-01-01 00:00:00.25' f; times
# Set-gid directories.
mkdir sg; chown 0:2000 sg; chmod 2777 sg
as 1001 touch sg/file
as 1001 mkdir sg/dir
as 1001 mkfifo sg/fifo
as 1001 ln -s x sg/link
as 1001 perl -MFcntl -e 'umask 0; sysopen(F, "sg/alien", O_CREAT | O_WRONLY, 02775) or die'
as_in 1001 2000 perl -MFcntl -e 'umask 0; sysopen(F, "sg/member", O_CREAT | O_WRONLY, 02775) or die'
as 1001 perl -MFcntl -e 'umask 0; sysopen(F, "sg/noexec", O_CREAT | O_WRONLY, 02764) or die'
as 1001 mkdir sg/dir/deep
as 1001 chmod 2755 sg/file
as_in 1001 2000 chmod 2755 sg/fifo
show sg sg/* sg/dir/deep
# Sticky directories.
mkdir -m 1777 st; touch st/root
as 1001 touch st/a
as 1002 rm -f st/a
as 1002 mv st/a st/b
as 1002 touch st/own
as 1002 mv st/own st/a
as 1001 mv st/a st/b
as 1001 ln st/b st/c
as 1001 rm -f st/root
chown 1003 st
as 1003 rm -f st/root
as 1003 mv st/b st/d
show st/*
# Set-uid and set-gid go with a change by somebody unprivileged, not with root's.
fresh() { rm -f p; head -c 8192 /dev/zero >p; chown 1001:1001 p; chmod "$1" p; }
change() {
  fresh "$1"; "${@:2}"; stat -c '%a %s' p
}
# (With set-gid but no execution by the group Linux has changed its mind more than once.)
echo names >names
for mode in 6777 4777 2777 2755; do
  echo "mode $mode"
  change $mode as 1002 sh -c 'echo x >>p'
  change $mode as 1001 sh -c 'echo x >>p'
  change $mode as 1002 truncate -s 100 p
  change $mode as 1002 sh -c ': >p'
  change $mode as 1002 fallocate -l 16384 p
  change $mode as 1002 fallocate -p -o 0 -l 4096 p
  change $mode as 1002 dd if=/dev/zero of=p bs=4096 count=1 oflag=direct conv=notrunc status=none
  change $mode as 1002 sh -c "cat names 1<>p"
  change $mode try sh -c 'echo x >>p'
  change $mode try truncate -s 100 p
  change $mode try fallocate -l 16384 p
  change $mode try chown 1002 p
  change $mode try chgrp 1002 p
  change $mode try chown 1001:1001 p
  change $mode as_in 1001 2000 chgrp 2000 p
  change $mode as 1001 touch p
done
mkdir pd; chmod 6777 pd; chown 1001:1001 pd; show pd
# Owners.
touch o; chown 1001:1001 o
as 1001 chown 1002 o
as 1001 chown 1001 o
as 1001 chgrp 1002 o
as 1001 chgrp 1001 o
as_in 1001 2000 chgrp 2000 o
as 1002 chgrp 1002 o
as 1002 chmod 777 o
as 1001 chmod 2750 o; show o
as 1001 chmod 6700 o; show o
chown 1001:1001 o; as 1001 chmod 2750 o; show o
as 1001 mknod node c 1 3
# Reading that leaves no trace, and reading that does.
head -c 4096 /dev/zero >r; chown 1001 r; chmod 644 r
as 1002 dd if=r of=/dev/null iflag=noatime status=none
as 1001 dd if=r of=/dev/null iflag=noatime status=none
atime() { [[ $(stat -c %X r) = "$1" ]] && echo kept || echo renewed; }
now=$(date +%s)
read_r() { dd if=r of=/dev/null bs=4096 iflag="$1" status=none; sleep 1.1; }
touch -m -d @$((now - 1000)) r; touch -a -d @$((now - 2000)) r
read_r direct,noatime; atime $((now - 2000))
read_r direct; atime $((now - 2000))
touch -m -d @$((now - 3000)) r; touch -a -d @$((now + 1000)) r
read_r direct; atime $((now + 1000))
touch -m -d @$((now - 900000)) r; touch -a -d @$((now - 90000)) r
read_r direct; atime $((now - 90000))
