"""Logs of seeded attempts, in the words that Nix and a Go build use; `str.format` fills in the derivation."""

EVALUATED = """\
evaluating the flake at git+file:///build?rev=4f1c0e7a
found 4 attributes: packages.{x86_64,aarch64,i686,armv6l}-linux
all attributes evaluate
"""

BUILT = """\
this derivation will be built:
  {drv}
building '{drv}'...
unpacking sources
unpacking source archive /nix/store/5m9ai0mn3l4w1x9pdfz8y0fhw4h9gqdr-source
source root is source
building
Building package {name}
\x1b[32mok\x1b[0m  	{name}/greet	0.004s
installing
stripping with go build -trimpath -ldflags '-s -w'
uploading bin/{name}
"""

RUNNING = """\
this derivation will be built:
  {drv}
building '{drv}'...
unpacking sources
unpacking source archive /nix/store/5m9ai0mn3l4w1x9pdfz8y0fhw4h9gqdr-source
source root is source
building
compiling greet/languages.go
compiling greet/plural.go
"""

FAILING = """\
this derivation will be built:
  {drv}
building '{drv}'...
unpacking sources
unpacking source archive /nix/store/q7v2n0lq5c1jz2iv8a4zksb4x3k6wq9f-source
source root is source
building
Building subPackage ./cmd/driftnote
compiling store/counter.go
compiling store/tides.go
# driftnote/store
store/tides.go:41:19: cannot use 1 << 40 (constant 1099511627776) as int value in argument to counter.Add (overflows)
store/tides.go:57:24: cannot use since.UnixMilli() (value of type int64) as int value in argument to counter.At
note: module requires 64-bit counters; GOARCH=arm has 32-bit int
error: builder for '{drv}' failed with exit code 1;
       last 5 log lines are shown above
"""

BROKEN_FLAKE = """\
evaluating the flake at git+file:///build?rev=9d20c1b4
error: syntax error, unexpected '}', expecting ';'

       at /build/source/flake.nix:12:3:

           11|     packages.x86_64-linux.hello = hello "amd64"
           12|   };
             |   ^
           13| }
"""
