// Command load plays what surrounds a server under measurement: the forge that sends webhooks and takes statuses, and
// runners that do no work of their own. It uses Go's standard library only.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return fmt.Errorf("usage: load webhooks|forge|runner [flags]")
	}
	flags := flag.NewFlagSet(arguments[0], flag.ExitOnError)
	switch arguments[0] {
	case "webhooks":
		return webhooks(flags, arguments[1:])
	case "forge":
		return serveForge(flags, arguments[1:])
	case "runner":
		return runner(flags, arguments[1:])
	}
	return fmt.Errorf("%q is none of webhooks, forge, runner", arguments[0])
}
