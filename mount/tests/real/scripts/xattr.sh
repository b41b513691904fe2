get() { getfattr --only-values -n "$1" "$2"; }
echo x >f; chmod 644 f; mkdir d; mkfifo p; ln -s f l; mkdir -m 1777 st; echo y >w; chmod 666 w; echo z >s; chmod 600 s
for name in user.a trusted.a security.a; do
  try setfattr -n $name -v root f
  try setfattr -n $name -v root d
  try setfattr -n $name -v root p
  try setfattr -h -n $name -v root l
  as 1001 setfattr -n $name -v user f
  as 1001 setfattr -n $name -v user w
  as 1001 setfattr -n $name -v user st
  as 1001 getfattr --only-values -n $name f
  as 1001 getfattr --only-values -n $name s
  as 1001 setfattr -x $name w
  as 1001 setfattr -x $name f
done
try setfattr -n system.a -v x f
try setfattr -n other.a -v x f
try getfattr --only-values -n system.a f
try getfattr -n user.absent f
try setfattr -x user.absent f
for path in f d p w; do getfattr -m - -d $path | sort; done
getfattr -h -m - -d l | sort
as 1001 sh -c "getfattr -m - -d f | sort"
# Capabilities of programs go with every change of what they do, by whomever.
cap=0x0100000200200000000000000000000000000000
program() { rm -f c; head -c 8192 /dev/zero >c; chmod 777 c; setfattr -n security.capability -v $cap c; }
state() { getfattr -n security.capability c >/dev/null 2>&1 && echo has || echo has not; }
program; state
for user in 0 1002; do
  program; as $user sh -c 'echo x >>c'; state
  program; as $user truncate -s 100 c; state
  program; as $user sh -c ': >c'; state
  program; as $user fallocate -l 16384 c; state
  program; as $user dd if=/dev/zero of=c bs=4096 count=1 oflag=direct conv=notrunc status=none; state
  program; as $user dd if=/dev/zero of=c bs=4096 count=1 conv=notrunc status=none; state
done
program; chown 1001 c; state
program; chmod 755 c; state
program; touch c; state
