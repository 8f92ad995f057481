# For the tools that fetch or build what they run in; to be sourced by bash.
#
# Whatever is fetched or built stays in ${CMSGX_CACHE:-~/.cache/cmsgx}. What exists under its final name there is
# complete: everything is made in a temporary folder beside it and renamed; who changes a recipe deletes what it made.
# shellcheck shell=bash

tool=tools/${0##*/}
mkdir -p "${CMSGX_CACHE:=$HOME/.cache/cmsgx}"
cache=$(realpath "$CMSGX_CACHE")

say() { printf '%s\n' "$*" >&2; }
die() { say "$tool: $*"; exit 1; }

usage() {  # prints the comment at the head of the script
    sed -n '2,/^set /{/^set /d;s/^# \?//;p}' "$1"
}

packages() {  # name...: installs what is not there yet
    local states
    states=$(dpkg-query --show --showformat='${db:Status-Status}\n' "$@" 2>&1 | sort -u) || :
    [ "$states" = installed ] && return
    (
        flock 9  # apt-get itself waits for dpkg's lock, but not for that of the lists
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 install --no-install-recommends "$@"
    ) 9>"$cache/apt.lock" >&2
}

once() {  # name command...: $cache/name is what the command leaves as FOLDER/result; one process at a time makes it
    local name=$1 maker=$2
    shift 2
    [ -e "$cache/$name" ] && return
    (
        flock 9
        [ -e "$cache/$name" ] && exit
        say "making $name in $cache (once, some minutes)"
        rm -rf --one-file-system "$cache/.$name."*  # of a run that was killed
        work=$(mktemp -d "$cache/.$name.XXXXXX")
        trap 'rm -rf --one-file-system "$work"' EXIT
        "$maker" "$work" "$@" >&2
        mv -T "$work/result" "$cache/$name"
    ) 9>"$cache/$name.lock"
}

make_debian() {  # FOLDER suite architecture package,...
    local mirror
    mirror=$(awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/debian.sources) || :  # else debootstrap's own
    packages debootstrap debian-archive-keyring
    debootstrap --variant=minbase --arch="$3" --include="$4" "$2" "$1/result" ${mirror:+"$mirror"}
    cp /etc/hosts /etc/resolv.conf "$1/result/etc/"
    echo 'Acquire::Check-Valid-Until "false";' >"$1/result/etc/apt/apt.conf.d/99snapshot"
}

# Becomes a command in a chroot, in a mount namespace of its own: the mounts go when the last process in it goes, and runs
# do not meet. The folder is seen inside under the name INSIDE, where the command starts.
in_chroot() {  # root folder inside command...
    # shellcheck disable=SC2016
    exec unshare --mount --propagation private sh -euc '
        root=$0 folder=$1 inside=$2
        shift 2
        mount -t proc proc "$root/proc"
        mount --rbind /sys "$root/sys"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs tmpfs "$root/tmp"
        mkdir -p "$root$inside"
        mount --bind "$folder" "$root$inside"
        exec chroot "$root" sh -c "cd \"\$0\" && exec \"\$@\"" "$inside" "$@"' "$1" "$2" "$3" "${@:4}"
}
