package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

const (
	attribute = "packages.x86_64-linux.hello"
	config    = "[images.hello]\noutput = \"hello\"\nbinary = \"bin/hello\"\n"
	logText   = "a runner of the bench: it evaluates and builds nothing\n"
)

// order is what the bench's runner reads of the server's answer to its claim.
type order struct {
	Attempt string `json:"attempt"`
	Kind    string `json:"kind"`
	Repo    struct {
		Commit string `json:"commit"`
	} `json:"repo"`
}

// session speaks the runner protocol (docs/reference/runner-protocol.md) for one Attempt.
type session struct {
	url, token, nonce string
}

// runner does an Attempt by the protocol alone: an evaluation finds one attribute, a build uploads one program.
func runner(flags *flag.FlagSet, arguments []string) error {
	size := flags.Int64("size", 4096, "bytes of the program that a build uploads")
	flags.Parse(arguments)
	token, err := os.ReadFile(os.Getenv("ALBATROS_TOKEN_FILE"))
	if err != nil {
		return err
	}
	nonce := make([]byte, 16)
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	calls := session{os.Getenv("ALBATROS_URL") + "/runner/v1", strings.TrimSpace(string(token)), hex.EncodeToString(nonce)}
	var job order
	claim := map[string]any{"protocol": 1, "nonce": calls.nonce, "host": "bench", "pid": os.Getpid(), "allocation": nil}
	if err := calls.json("/claim", claim, &job); err != nil {
		return err
	}
	if err := calls.send("PUT", "/log/0?offset=0", strings.NewReader(logText), int64(len(logText)), nil); err != nil {
		return err
	}
	result := map[string]any{
		"nonce": calls.nonce, "outcome": "succeeded", "reason": nil, "message": "", "nix_version": "2.8.0",
		"log_pieces": 1, "log_bytes": len(logText), "evaluation": nil, "outputs": []any{},
	}
	if job.Kind == "evaluation" {
		result["evaluation"] = evaluation(job)
	} else if result["outputs"], err = build(calls, job, *size); err != nil {
		return err
	}
	return calls.json("/result", result, nil)
}

func evaluation(job order) any {
	found := map[string]any{
		"attribute": attribute, "drv_path": storePath(job, "hello.drv"), "system": "x86_64-linux", "name": "hello",
		"error": nil, "needs": []string{},
	}
	return map[string]any{"config": config, "commit_time": 1700000000, "attributes": []any{found}}
}

func build(calls session, job order, size int64) (any, error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, program(job, size)); err != nil {
		return nil, err
	}
	digest := "sha256:" + hex.EncodeToString(hash.Sum(nil))
	if err := calls.send("PUT", "/blobs/"+digest, program(job, size), size, nil); err != nil {
		return nil, err
	}
	file := map[string]any{"path": "bin/hello", "kind": "binary", "digest": digest, "size": size, "executable": true}
	path, nar := storePath(job, "hello"), digest
	closure := []any{map[string]any{"path": path, "nar_hash": nar, "nar_size": size}}
	output := map[string]any{
		"output": "out", "store_path": path, "nar_hash": nar, "nar_size": size, "closure": closure, "files": []any{file},
	}
	return []any{output}, nil
}

func storePath(job order, name string) string {
	return "/nix/store/" + job.Repo.Commit[:32] + "-" + name
}

// program is an ELF header and bytes that no compressor makes smaller, others for each commit.
func program(job order, size int64) io.Reader {
	var head bytes.Buffer
	head.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	for _, field := range []any{
		uint16(2), uint16(62), uint32(1), uint64(0), uint64(64), uint64(0), uint32(0),
		uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), [6]uint64{},
	} {
		binary.Write(&head, binary.LittleEndian, field)
	}
	key := sha256.Sum256([]byte(job.Repo.Commit))
	block, err := aes.NewCipher(key[:16])
	if err != nil {
		panic(err) // The key's length is a constant.
	}
	noise := cipher.StreamReader{S: cipher.NewCTR(block, key[16:]), R: endless{}}
	return io.LimitReader(io.MultiReader(&head, noise), size)
}

// endless gives zeros for ever.
type endless struct{}

func (endless) Read(data []byte) (int, error) {
	for index := range data {
		data[index] = 0
	}
	return len(data), nil
}

func (calls session) json(path string, body, answer any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return calls.send("POST", path, bytes.NewReader(data), int64(len(data)), answer)
}

func (calls session) send(method, path string, body io.Reader, size int64, answer any) error {
	request, err := http.NewRequest(method, calls.url+path, body)
	if err != nil {
		return err
	}
	request.ContentLength = size
	request.Header.Set("Authorization", "Bearer "+calls.token)
	request.Header.Set("X-Albatros-Nonce", calls.nonce)
	got, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		return err
	}
	if got.StatusCode >= 300 {
		return fmt.Errorf("%s %s was answered %d: %s", method, path, got.StatusCode, text)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}
