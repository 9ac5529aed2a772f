package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const zeros = "0000000000000000000000000000000000000000"

type outcome struct {
	latency  time.Duration
	status   string
	delivery string
}

// webhooks sends signed pushes at a fixed rate, whether or not earlier ones were answered (an open loop). A latency
// counts from the moment at which its push was due, so a server that stalls is charged for everybody who waited.
func webhooks(flags *flag.FlagSet, arguments []string) error {
	url := flags.String("url", "", "the webhook's address")
	listen := flags.String("forge", "", "address on which to play the forge")
	rate := flags.Int("rate", 200, "pushes a second")
	seconds := flags.Int("seconds", 10, "how long")
	slots := flags.Int("slots", 2, "runners to keep busy with a clone that does not end, before the pushes begin")
	template := flags.String("template", "", "a recorded push")
	secret := flags.String("secret", "", "file with the webhook's secret")
	flags.Parse(arguments)

	world := &forge{}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	go http.Serve(listener, world)
	count := *rate * *seconds
	requests, err := prepare(*url, *template, *secret, count+*slots)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
	if err := occupy(client, requests[count:], world); err != nil {
		return err
	}
	return report(fire(client, requests[:count], time.Second/time.Duration(*rate)), world)
}

// occupy pushes once for each slot, and waits until runners ask for the clones that they will not get.
func occupy(client *http.Client, requests []*http.Request, world *forge) error {
	for _, request := range requests {
		if got := send(client, request); got != "202" {
			return fmt.Errorf("a first push was answered %s", got)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); atomic.LoadInt64(&world.clones) < int64(len(requests)); {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d slots are busy after 20 s", world.clones, len(requests))
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(time.Second)
	return nil
}

func fire(client *http.Client, requests []*http.Request, interval time.Duration) []outcome {
	outcomes := make([]outcome, len(requests))
	var all sync.WaitGroup
	start := time.Now()
	for index := range requests {
		due := start.Add(time.Duration(index) * interval)
		time.Sleep(time.Until(due))
		all.Add(1)
		go func(index int) {
			defer all.Done()
			status := send(client, requests[index])
			outcomes[index] = outcome{time.Since(due), status, requests[index].Header.Get("X-Gitea-Delivery")}
		}(index)
	}
	all.Wait()
	return outcomes
}

func send(client *http.Client, request *http.Request) string {
	answer, err := client.Do(request)
	if err != nil {
		// The rest of the text differs from one to the next.
		return "no answer"
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, answer.Body)
	return strconv.Itoa(answer.StatusCode)
}

func report(outcomes []outcome, world *forge) error {
	statuses := map[string]int{}
	latencies := make([]float64, len(outcomes))
	accepted := []string{}
	for index, one := range outcomes {
		statuses[one.status]++
		if one.status == "202" {
			accepted = append(accepted, one.delivery)
		}
		latencies[index] = float64(one.latency.Microseconds()) / 1000
	}
	sort.Float64s(latencies)
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"answers":         statuses,
		"accepted":        accepted,
		"latencies_ms":    latencies,
		"statuses_posted": atomic.LoadInt64(&world.statuses),
	})
}

// prepare signs every request beforehand, so that this program's own work is not in the figures.
func prepare(url, template, secretFile string, count int) ([]*http.Request, error) {
	recorded, err := os.ReadFile(template)
	if err != nil {
		return nil, err
	}
	secret, err := os.ReadFile(secretFile)
	if err != nil {
		return nil, err
	}
	requests := make([]*http.Request, count)
	for index := range requests {
		body, err := push(recorded, index)
		if err != nil {
			return nil, err
		}
		request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		mac := hmac.New(sha256.New, bytes.TrimSpace(secret))
		mac.Write(body)
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Gitea-Event", "push")
		request.Header.Set("X-Gitea-Delivery", fmt.Sprintf("bench-%08d", index))
		request.Header.Set("X-Gitea-Signature", hex.EncodeToString(mac.Sum(nil)))
		requests[index] = request
	}
	return requests, nil
}

// push is the recorded one as if it were of another repo, ref and commit.
func push(recorded []byte, index int) ([]byte, error) {
	var document map[string]any
	if err := json.Unmarshal(recorded, &document); err != nil {
		return nil, err
	}
	digest := sha256.Sum256([]byte(strconv.Itoa(index)))
	commit := hex.EncodeToString(digest[:20])
	document["ref"] = fmt.Sprintf("refs/heads/branch-%d", index)
	document["before"], document["after"] = zeros, commit
	document["head_commit"].(map[string]any)["id"] = commit
	repository := document["repository"].(map[string]any)
	repository["name"] = fmt.Sprintf("repo-%d", index)
	repository["full_name"] = fmt.Sprintf("bench/repo-%d", index)
	return json.Marshal(document)
}
