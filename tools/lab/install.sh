#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Installs what the live tests need, on Debian 12; docs/lab.md tells what that is. Does nothing
# where it is all there. Packages are installed by root; everything else goes to one folder. The
# machine's own kernel and its /etc/apt stay as they are.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
lab=${MFDTOOL_LAB:-${XDG_CACHE_HOME:-$HOME/.cache}/mfdtool/lab}
mirror=${MFDTOOL_MIRROR:-http://deb.debian.org}
suite=bookworm-backports
modules='netfs 9pnet 9pnet_virtio 9p vfio vfio_iommu_type1 mdev'
packages=(
    busybox-static cpio gcc libc6-dev make pciutils tcpdump tshark xz-utils
)
newer=(linux-headers-amd64 qemu-system-x86 qemu-utils)

say() { echo "lab: $*"; }

# An apt that knows one suite more, and source packages, without a line in /etc/apt.
backports_apt() {
    apt-get -q -o Dir::Etc::SourceList="$lab/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$lab/apt/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
        -o APT::Sandbox::User=root -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
}

update_apt() {
    mkdir -p "$lab/apt/lists/partial"
    cat >"$lab/apt/sources.list" <<END
deb $mirror/debian bookworm main
deb $mirror/debian bookworm-updates main
deb $mirror/debian-security bookworm-security main
deb $mirror/debian $suite main
deb-src $mirror/debian $suite main
END
    backports_apt update
}

# The machine's own packages.
install_packages() {
    if [ "$(id -u)" != 0 ]; then
        say "root installs the packages: ${packages[*]} ${newer[*]}"
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    backports_apt install -y --no-install-recommends "${packages[@]}"
    # What these depend on has to come from there as well.
    backports_apt install -y --no-install-recommends -t "$suite" "${newer[@]}"
}

# download PACKAGE: fetch a package to the current folder, without installing it.
download() {
    say "downloading $1"
    backports_apt download "$1/$suite"
}

# The kernel, and the modules that its first process loads.
unpack_kernel() {
    download "linux-image-$release"
    dpkg-deb -x linux-image-*.deb image
    cp "image/boot/vmlinuz-$release" "$lab/vmlinuz"
    mkdir -p initramfs/bin initramfs/modules
    for module in $modules; do
        find "image/lib/modules/$release" -name "$module.ko.xz" -exec xz -dc {} + \
            >"initramfs/modules/$module.ko"
        [ -s "initramfs/modules/$module.ko" ] || { say "no module $module"; exit 1; }
    done
}

# The sample device: one file of the kernel's source.
build_device() {
    local version
    version=$(cut -d. -f1,2 <<<"$release")
    download "linux-source-$version"
    mkdir mtty
    dpkg-deb --fsys-tarfile linux-source-*.deb |
        tar -xO "./usr/src/linux-source-$version.tar.xz" |
        tar -xJ -C mtty --strip-components=3 "linux-source-$version/samples/vfio-mdev/mtty.c"
    echo 'obj-m := mtty.o' >mtty/Makefile
    make -s -C "/usr/src/linux-headers-$release" M="$PWD/mtty" modules
    cp mtty/mtty.ko initramfs/modules/
}

pack_initramfs() {
    cp /bin/busybox initramfs/bin/
    install -m 755 "$here/init" initramfs/init
    (cd initramfs && find . | cpio --quiet -o -H newc) | gzip -1 >"$lab/initramfs.gz"
}

# QEMU's own decoder of main streams, to compare with.
unpack_reference() {
    backports_apt source --download-only --tar-only "qemu/$suite"
    tar -xJf qemu_*.orig.tar.xz -C "$lab" --no-same-owner --strip-components=2 --wildcards \
        '*/scripts/analyze-migration.py'
}

build() {
    local work
    work=$(mktemp -d)
    trap "rm -rf '$work'" EXIT
    cd "$work"
    gcc -O2 -Wall -Werror -shared -fPIC -o "$lab/short_reads.so" "$here/short_reads.c" -ldl
    unpack_kernel
    build_device
    pack_initramfs
    unpack_reference
}

is_installed() {
    local all=("${packages[@]}" "${newer[@]}")
    dpkg-query -W -f '${Status}\n' "${all[@]}" 2>/dev/null |
        grep -c '^install ok installed' | grep -qx "${#all[@]}" &&
        qemu-system-x86_64 --version | grep -qE 'version (1[0-9]|[2-9][0-9])\.'
}

stamp=$(cat "$here"/{install.sh,init,short_reads.c} | sha256sum | cut -d' ' -f1)
if [ "$(cat "$lab/stamp" 2>/dev/null)" = "$stamp" ] && is_installed; then
    say "installed in $lab"
    exit 0
fi
mkdir -p "$lab"
rm -f "$lab/stamp"
update_apt
is_installed || install_packages
release=$(dpkg-query -W -f '${Depends}' linux-headers-amd64 |
    sed -n 's/.*linux-headers-\([^ ,]*\).*/\1/p')
say "kernel $release"
build
rm -rf "$lab/apt"
echo "$release" >"$lab/release"
echo "$stamp" >"$lab/stamp"
say "installed in $lab"
