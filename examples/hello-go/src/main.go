// Says hello, and which platform it was built for.
package main

import (
	"fmt"
	"runtime"
)

func main() {
	fmt.Printf("Hello from Albatros on %s/%s\n", runtime.GOOS, runtime.GOARCH)
}
