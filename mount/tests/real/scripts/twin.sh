# Front of every script that runs on ext4 and on a mount, in an empty folder of root's: what is printed must be the same.
umask 022
export LC_ALL=C
exec 2>&1
# Runs a command; prints it, how it ended, and what it said.
try() {
  local out
  if out=$("$@" 2>&1); then printf 'ok   %s => %s\n' "$*" "$out"; else printf 'FAIL %s => %s\n' "$*" "$out"; fi
}
# The same as another user, without other groups.
as() { try setpriv --reuid "$1" --regid "$1" --clear-groups -- "${@:2}"; }
# The same, in one more group: USER GROUP COMMAND.
as_in() { try setpriv --reuid "$1" --regid "$1" --groups "$2" -- "${@:3}"; }
show() { stat -c '%n %A %a %u:%g %h' -- "$@"; }
lists() { local path; for path; do echo "# $path"; getfacl -cn -- "$path"; done; }
