#!/usr/bin/env bash
# Brings Prometheus 3.x and VictoriaMetrics from Debian's newer suites into a cache outside the checkout, once. Nothing is
# installed: the packages are unpacked, and apt keeps its state in a folder that is thrown away. The mirror and its key
# are the ones that this machine uses already. programs.py looks for the programs in the same cache.
set -euo pipefail

cache=${HEALER_PARTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/healer/parts}
suites="testing unstable"

say() { printf 'parts: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# fetched NAME PROGRAM...: is there a folder of that name, of whatever version, with all the programs in it?
fetched() {
    local folder program name=$1
    shift
    for folder in "$cache/$name"-[0-9]*; do
        for program in "$@"; do [[ -x $folder/$program ]] || continue 2; done
        say "$name is in $folder"
        return 0
    done
    return 1
}

# The base suite of this machine's own Debian mirror: its address.
mirror() {
    local address release component label
    while IFS='|' read -r address release component label; do
        [[ $release == "$1" && $component == main && ($label == Debian || $label == '$(LABEL)') ]] || continue
        printf '%s\n' "$address"
        return 0
    done < <(apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(LABEL)' 'Created-By: Packages')
    return 1
}

private_apt() {
    apt-get --quiet=2 -o Dir::State="$work/state" -o Dir::State::status=/dev/null -o Dir::Cache="$work/cache" \
        -o Dir::Etc::sourcelist="$work/private.sources" -o Dir::Etc::sourceparts=/dev/null \
        -o APT::Sandbox::User=root -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Acquire::Languages=none "$@"
}

# unpack NAME PACKAGE PROGRAM...: the programs of some packages into the folder NAME-VERSION, the first package's version.
unpack() {
    local name=$1 packages=$2 version program
    shift 2
    # shellcheck disable=SC2086 # packages are words
    (cd "$work" && rm -rf unpacked ./*.deb && private_apt download $packages) || die "cannot download $packages"
    version=$(dpkg-deb --field "$work/${packages%% *}"_*.deb Version)
    for package in "$work"/*.deb; do dpkg-deb --extract "$package" "$work/unpacked"; done
    mkdir "$work/$name"
    for program in "$@"; do
        "$work/unpacked/usr/bin/$program" --version >/dev/null 2>&1 ||
            die "$program $version does not run here; it needs a newer system"
        cp "$work/unpacked/usr/bin/$program" "$work/$name/"
    done
    rm -rf "${cache:?}/$name-$version"
    mv "$work/$name" "$cache/$name-$version"
    say "$name is in $cache/$name-$version"
}

missing=()
fetched prometheus prometheus promtool || missing+=(prometheus)
fetched victoria-metrics victoria-metrics || missing+=(victoria-metrics)
((${#missing[@]})) || exit 0

command -v apt-get >/dev/null || die "apt-get is not here; put prometheus 3.x, promtool and victoria-metrics into $cache"
# shellcheck source=/dev/null
codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
address=$(mirror "$codename") || die "this machine has no Debian mirror for ${codename:-its release} in its sources"
mkdir -p "$cache"
work=$(mktemp -d "$cache/.unfinished-XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{state/lists/partial,cache/archives/partial}
printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$address" "$suites" \
    /usr/share/keyrings/debian-archive-keyring.gpg >"$work/private.sources"
say "looking in the suites $suites (about 100 MB)"
private_apt update || die "cannot read the suites $suites"
for name in "${missing[@]}"; do
    case $name in
        prometheus) unpack prometheus "prometheus promtool" prometheus promtool ;;
        victoria-metrics) unpack victoria-metrics victoria-metrics victoria-metrics ;;
    esac
done
