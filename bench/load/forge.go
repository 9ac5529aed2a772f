package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
)

// forge is as much of a Gitea as a server needs while it is measured: statuses are taken, and a clone never gets its
// first byte, so that the runner that asked for it keeps its slot.
type forge struct {
	statuses int64
	clones   int64
}

func (f *forge) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	switch {
	case strings.HasSuffix(request.URL.Path, "/info/refs"):
		atomic.AddInt64(&f.clones, 1)
		<-request.Context().Done()
	case request.Method == http.MethodPost && strings.Contains(request.URL.Path, "/statuses/"):
		io.Copy(io.Discard, request.Body)
		atomic.AddInt64(&f.statuses, 1)
		answer.Header().Set("Content-Type", "application/json")
		answer.WriteHeader(http.StatusCreated)
		fmt.Fprint(answer, "{}")
	default:
		http.NotFound(answer, request)
	}
}

func serveForge(flags *flag.FlagSet, arguments []string) error {
	listen := flags.String("listen", "", "address and port")
	flags.Parse(arguments)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	return http.Serve(listener, &forge{})
}
