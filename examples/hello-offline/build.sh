# Runs in Nix's sandbox, with the paths of the host that `executor.sandbox_paths` names.
set -eu
export PATH=/usr/local/go/bin:/usr/lib/go/bin:/usr/bin:/bin
export HOME="$PWD" GOCACHE="$PWD/cache" GOPATH="$PWD/go" GOTOOLCHAIN=local GOFLAGS=-mod=mod GOPROXY=off
export CGO_ENABLED=0 GOOS=linux
mkdir -p "$out/bin"
cd "$src"
echo "building hello for $GOOS/$GOARCH with $(go version)"
# -l: inlining nothing makes the standard library compile a third faster, and this program does not need the speed.
go build -trimpath -gcflags=all=-l -ldflags='-s -w -buildid=' -o "$out/bin/hello" .
