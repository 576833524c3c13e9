#!/usr/bin/env bash
# Runs the base install with [cpu] as an emulated aarch64 and compares its picture with this machine's.
#
#   tests/arm/run.sh PYTHON [WORK]
#
# PYTHON: of an environment with sld-edge[cpu,export] on this machine. WORK: a folder for everything that is made (default out/arm), kept,
# so that a second run takes half a minute for each Python. Needs root, Debian's qemu-user-static and debootstrap, and the package registries
# of Debian and Python the first time. Nothing stays mounted or registered afterwards.
# Settings by variable: SUITES (Debian releases: "bookworm trixie", Python 3.11 and 3.13), STEPS (4), CPU (cortex-a76, for Orin; max for Thor).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1") # not what the link in an environment points to
mkdir -p "${2:-out/arm}" && work=$(realpath "${2:-out/arm}") project=$(realpath "$here/../..")
steps=${STEPS:-4} cpu=${CPU:-cortex-a76} suites=${SUITES:-bookworm trixie}
began=$SECONDS
say() { printf '[%4d s] %s\n' $((SECONDS - began)) "$*"; }
fail() { echo "make arm: $*" >&2; exit 1; }

for tool in qemu-aarch64-static debootstrap; do
  command -v $tool >/dev/null || fail "$tool is missing: apt install qemu-user-static debootstrap"
done
[ "$(id -u)" = 0 ] || fail "an arm64 root folder needs mounts and chroot: run as root"
[ -e /proc/sys/fs/binfmt_misc ] || fail "the kernel has no binfmt_misc, without which it starts no program of another processor"

# The wheel and a bundle, made here.
rm -rf "$work/wheels"
"$python" -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation "$project" -w "$work/wheels"
[ -e "$work/bundle/manifest.json" ] ||
  HF_HUB_OFFLINE=1 "$python" -m sld_edge.export.cli "$project/models/tinyworld" "$work/bundle" >/dev/null
say "wheel and bundle"

# The kernel starts arm64 programs through the emulator: own registration, gone with the command.
ours= register=/proc/sys/fs/binfmt_misc
undo() {
  case $ours in *registered*) echo -1 >$register/qemu-aarch64 ;; esac
  case $ours in *mounted*) umount $register ;; esac
}
trap undo EXIT
if [ ! -e $register/register ]; then
  mount -t binfmt_misc none $register 2>/dev/null || fail "binfmt_misc cannot be mounted: run outside a container, or in a privileged one"
  ours=mounted
fi
if [ ! -e $register/qemu-aarch64 ]; then
  cat /usr/lib/binfmt.d/qemu-aarch64.conf >$register/register || fail "the emulator cannot be registered with the kernel"
  ours="$ours registered"
fi

arm() { # a command in the root folder $root
  root=$root cpu=$cpu cpuinfo=$here/cpuinfo unshare --mount --propagation private bash -c '
    mount -t proc proc $root/proc && mount --bind $cpuinfo $root/proc/cpuinfo
    mount --bind /dev $root/dev && mount --rbind /sys $root/sys
    exec chroot $root /usr/bin/env -i -C /check PATH=/opt/site/bin:/usr/bin:/bin HOME=/check LANG=C.UTF-8 \
      PYTHONPATH=/opt/site XDG_CACHE_HOME=/check/cache TERM=dumb COLUMNS=160 QEMU_CPU=$cpu "$@"' bash "$@"
}

for suite in $suites; do
  root=$work/$suite/root
  # An arm64 root folder. Both stages are done here, natively; nothing is configured under emulation.
  if [ ! -e "$root/.ready" ]; then
    rm -rf "$root" && mkdir -p "$root"
    debootstrap --foreign --arch=arm64 --variant=minbase --include=python3 "$suite" "$root" >"$work/$suite/debootstrap.log" 2>&1 ||
      fail "debootstrap of $suite failed: see $work/$suite/debootstrap.log"
    for deb in "$root"/var/cache/apt/archives/*.deb; do
      dpkg-deb --fsys-tarfile "$deb" | tar --keep-directory-symlink -xf - -C "$root"
    done
    rm -f "$root"/var/cache/apt/archives/*.deb
    [ ! -L "$root/proc" ] || { rm "$root/proc"; mkdir "$root/proc"; } # the second stage would have replaced this link
    touch "$root/.ready"
  fi
  guest=$(basename "$(readlink "$root/usr/bin/python3")") && guest=${guest#python}

  # What pip would take for aarch64. It judges the markers of requirements by this machine: hence onnxruntime by its name, not [cpu].
  if [ ! -e "$root/opt/site/.ready" ]; then
    rm -rf "$root/opt/site"
    # shellcheck disable=SC2046
    "$python" -m pip install -q --disable-pip-version-check --only-binary=:all: --implementation cp --python-version "$guest" \
      --abi "cp${guest/./}" --abi abi3 --abi none --platform manylinux2014_aarch64 \
      $(for n in 17 24 26 27 28 31 34 35; do echo "--platform manylinux_2_${n}_aarch64"; done) \
      --target "$root/opt/site" "$work"/wheels/*.whl 'onnxruntime>=1.20'
    touch "$root/opt/site/.ready"
  else # the packages stay, the product is the newest
    "$python" -m pip install -q --disable-pip-version-check --no-deps --upgrade --target "$root/opt/site" "$work"/wheels/*.whl
  fi
  sed -i '1s|^#!.*|#!/usr/bin/python3|' "$root"/opt/site/bin/*
  rm -rf "$root/check" && mkdir -p "$root/check" && cp -r "$work/bundle" "$root/check/bundle"
  rm -rf "$root/check/bundle/cache" && cp "$here/probe.py" "$root/check/"
  say "$suite, Python $guest: $(du -sh "$root/opt/site" | cut -f1) of packages"

  arm sld-export --verify bundle
  arm python3 probe.py bundle out "$steps"
  say "picture on aarch64"
  [ -e "$work/x86/probe.npz" ] && [ -n "${made:-}" ] ||
    (cd "$work" && PYTHONPATH=$project "$python" "$here/probe.py" bundle x86 "$steps") && made=1
  "$python" "$here/compare.py" "$work/x86" "$root/check/out"
done
say "done"
