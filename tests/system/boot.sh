# boot.sh NAME INIT - is pid 1 of a host's new namespaces: mounts what a kernel and an initrd would have, makes the
# host's disk the root, and becomes INIT (systemd; or a shell that reaps, with sshd or with nothing beside it)
set -e
name=$1 init=$2
cd /mnt/root
mount -t proc proc proc -o nosuid,noexec,nodev
# A host must not change the settings of the one kernel that all share; those of its own network it may.
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -t sysfs sysfs sys -o ro,nosuid,noexec,nodev
mount -t tmpfs tmpfs run -o mode=755,nosuid,nodev
mount -t tmpfs tmpfs dev -o mode=755,nosuid
mkdir dev/pts dev/shm run/sshd run/lock .old
chmod 1777 run/lock
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666,mode=0620,gid=5
mount -t tmpfs tmpfs dev/shm -o mode=1777
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"; done
mknod -m 666 dev/tty c 5 0
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
hostname "$name"
case $init in
systemd) mount -t cgroup2 cgroup2 sys/fs/cgroup; become='exec /sbin/init --log-target=journal' ;;
# A shell that waits reaps whatever becomes its child; sshd as pid 1 lets zombies stand for seconds.
sshd) become='trap "exit 0" TERM; /usr/sbin/sshd -D -e & wait' ;;
idle) become='trap "exit 0" TERM; sleep infinity & wait' ;;
esac
pivot_root . .old
exec env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set -sys_module,-sys_time,-sys_rawio \
    chroot . /bin/sh -c "umount -l /.old; rmdir /.old; $become" lab-init </dev/null
