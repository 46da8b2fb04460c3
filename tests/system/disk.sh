# disk.sh NAME IP LOWERDIRS MEGABYTES - in a new mount namespace: makes a host's disk, an overlay over its image.
# With LAB_COPY it begins with what another host wrote on its own, and is that host once more, by its machine id. It is
# copied and no layer: `chattr` is refused for a file below the upper directory.
# The disk is in memory; with LAB_DISK it is that folder of the machine, and dpkg waits for it as it does by default.
# The namespace outlives the host's processes, so a host that was switched off finds its files again.
set -e
name=$1 ip=$2 lowers=$3 megabytes=$4
if [ -n "$LAB_DISK" ]; then mount --bind "$LAB_DISK" /mnt
else mount -t tmpfs -o "mode=755,size=${megabytes}m" lab-disk /mnt; fi
mkdir /mnt/upper /mnt/work /mnt/root
[ -z "$LAB_COPY" ] || cp -a "$LAB_COPY/." /mnt/upper
mount -t overlay lab-root -o "lowerdir=$lowers,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
chmod 755 /mnt/root
[ -z "$LAB_DISK" ] || find /mnt/root/etc/dpkg/dpkg.cfg.d -type f -exec sed -i /force-unsafe-io/d {} + 2>/dev/null || true
cd /mnt/root
echo "$name" >etc/hostname
printf '127.0.0.1 localhost\n%s %s\n' "$ip" "$name" >etc/hosts
[ -n "$LAB_COPY" ] || tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
if [ -n "$LAB_KEY" ]; then
    mkdir -m 700 -p root/.ssh home/ec2-user/.ssh
    echo "$LAB_KEY" | tee root/.ssh/authorized_keys >home/ec2-user/.ssh/authorized_keys
    chown -R 1000:1000 home/ec2-user/.ssh
    rm -f etc/ssh/ssh_host_ed25519_key etc/ssh/ssh_host_ed25519_key.pub
    ssh-keygen -q -t ed25519 -N '' -C "$name" -f etc/ssh/ssh_host_ed25519_key
fi
