// Says hello, and which platform it was built for.
package main

import (
	"runtime"
	"syscall"
)

func main() {
	// Not fmt: it would bring half of the standard library, which is compiled anew for each platform.
	line := "Hello from Albatros on " + runtime.GOOS + "/" + runtime.GOARCH + "\n"
	if _, err := syscall.Write(1, []byte(line)); err != nil {
		syscall.Exit(1)
	}
}
