mkdir d
echo x >f
chmod 640 f
lists f
as 1001 cat f
try setfacl -m u:1001:rw f
lists f; show f; ls -l f | cut -c1-11
as 1001 cat f
as 1001 sh -c 'echo y >>f'
as 1002 cat f
as 1002 sh -c 'echo z >>f'
try setfacl -m g:1002:r f
as 1002 cat f
as 1002 sh -c 'echo z >>f'
as_in 1003 1002 cat f
# The mask is the group's part of the mode, both ways.
chmod 600 f; lists f; show f
as 1001 cat f
chmod 664 f; lists f
as 1001 cat f
try setfacl -m m::r f; lists f; show f
as 1001 sh -c 'echo y >>f'
# An entry of a user comes before those of groups.
try setfacl -m u:1002:- f
as 1002 cat f
# The owning group's own entry counts, not the mode that shows the mask.
echo g >g; chown 0:1003 g; chmod 660 g
as 1003 cat g
try setfacl -m g::-,u:1001:rw g; show g
as 1003 cat g
as 1001 sh -c 'echo y >>g'
# Whose right it is to set them.
as 1001 setfacl -m u:1001:rwx f
as 1001 setfacl -b f
chown 1001 f
as 1001 setfacl -m u:1004:rw f; lists f
as 1004 cat f
as 1002 getfacl -cn f
# Off again.
try setfacl -x u:1001 f; lists f
try setfacl -b f; lists f; show f
try setfacl -m u::rwx,g::r,o::- f; show f
getfattr -m - -d f
try setfacl -x u:1001 f
try setfattr -x system.posix_acl_access f
# Nonsense, and things that have no list.
try setfattr -n system.posix_acl_access -v 0x0200000001000700ffffffff f
try setfattr -n system.posix_acl_access -v 0x01000000 f
ln -s f link
try setfattr -h -n system.posix_acl_access -v 0x0200000001000600ffffffff04000400ffffffff20000400ffffffff link
try setfacl -d -m u:1001:r f
# A directory that only some may search.
mkdir -m 700 hall; echo in >hall/x
as 1001 cat hall/x
try setfacl -m u:1001:x hall
as 1001 cat hall/x
as 1001 ls hall
try setfacl -m u:1001:rx hall
as 1001 ls hall
as 1001 touch hall/y
try setfacl -m u:1001:rwx hall
as 1001 touch hall/y
show hall hall/y
# What a directory passes on, whatever the umask.
try setfacl -d -m u:1001:rwx,g:1002:rx,g::rx,o::- d; lists d; show d
for mask in 077 0 027; do
  umask "$mask"
  touch "d/file$mask"; mkdir "d/sub$mask"; mkfifo "d/fifo$mask"; ln -s x "d/link$mask"
  perl -MFcntl -e 'sysopen(F, $ARGV[0], O_CREAT | O_WRONLY, oct $ARGV[1]) or die $!' "d/open$mask" 600
  perl -MFcntl -e 'sysopen(F, $ARGV[0], O_CREAT | O_WRONLY, oct $ARGV[1]) or die $!' "d/all$mask" 777
  mkdir -m 750 "d/sub750$mask"
  lists d/{file,sub,fifo,open,all,sub750}"$mask"; show d/*"$mask"
  umask 022
done
touch d/sub077/deep; mkdir d/sub077/dir; lists d/sub077/deep d/sub077/dir
as 1001 sh -c 'umask 077; touch d/mine; mkdir d/sub0/mine'; ls d
chmod 777 d
as 1001 sh -c 'umask 077; touch d/mine; mkdir d/sub0/mine'
show d/mine; lists d/mine
try setfacl -d -x u:1001 d; lists d
try setfacl -k d; lists d
umask 077; touch d/plain; umask 022; show d/plain; lists d/plain d/file0
# Set-gid: the owner keeps it only as one of the group.
touch prog; chown 1001:2000 prog; chmod 2755 prog
as 1001 setfacl -m u:1004:r prog; show prog
chown 1001:2000 prog; chmod 2755 prog
try setfacl -m u:1004:rx prog; show prog
if [[ $TRANSPORT = uring ]]; then
  as_in 1001 2000 setfacl -m u:1004:r prog; show prog
fi
# A change of owner keeps the list.
chown 1002:1002 g; lists g; show g
# Links and names.
setfacl -m u:1001:r f; ln f hard; mv f moved; lists hard moved
# Programs that take them along.
setfacl -m u:1001:rwx,d:u:1002:rx d
every() { find "$1" ! -type l | sort | sed "s|^$1|.|" >names; (cd "$1" && lists $(cat ../names)); }
cp -a d by-cp; every d >one; every by-cp >two; try cmp one two
rsync -aAX d/ by-rsync; every by-rsync >two; try cmp one two
tar --acls -cf - d | (mkdir by-tar && tar --acls -C by-tar --strip-components=1 -xf -); every by-tar >two; try cmp one two
cat one
rm -r d by-cp by-rsync by-tar
