#!/usr/bin/env bash
# Builds the Kubernetes control plane that the tests run against, once per release, into a cache outside the checkout.
# The release stands in go.mod; controlplane.py looks for the programs in the same cache.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
programs=(kube-apiserver kube-controller-manager kube-scheduler)
version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' go.mod)
needed_go=$(awk '$1 == "go" { print $2 }' go.mod)
cache=${HEALER_KUBE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/healer/kubernetes}
final=$cache/$version

say() { printf 'kube: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

all_built() {
    local program
    for program in "${programs[@]}"; do [[ -x $final/$program ]] || return 1; done
}

check_go() {
    local found
    command -v go >/dev/null ||
        die "go is not on the PATH: install Go $needed_go or newer, put its bin folder on the PATH, run this again"
    # Inside the module, so that a Go that may fetch a newer toolchain (GOTOOLCHAIN=auto) has done so before it answers.
    found=$(go env GOVERSION) || die "go cannot read go.mod: install Go $needed_go or newer, run this again"
    [[ $(printf '%s\n' "$needed_go" "${found#go}" | sort -V | head -n 1) == "$needed_go" ]] ||
        die "Kubernetes $version needs Go $needed_go or newer, this is ${found#go}: install it, or set GOTOOLCHAIN=auto"
}

build() {
    local major minor stamp
    IFS=. read -r major minor _ <<<"${version#v}"
    stamp=k8s.io/component-base/version
    go build -mod=readonly -trimpath -o "$1/" \
        -ldflags "-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor" tool
}

[[ -n $version ]] || die "go.mod names no k8s.io/kubernetes version"
if all_built; then
    say "$version is already built in $final"
    exit 0
fi
check_go
mkdir -p "$cache"
unfinished=$(mktemp -d "$cache/.unfinished-$version-XXXXXX")
trap 'rm -rf "$unfinished"' EXIT
say "building ${programs[*]} $version (about 4 minutes on 2 cores, 3 GB of Go build cache)"
build "$unfinished"
mkdir -p "$final"
for program in "${programs[@]}"; do mv -f "$unfinished/$program" "$final/$program"; done
say "built $version in $final"
