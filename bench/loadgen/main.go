// A compact S3 load generator: raw sockets, SigV4, one goroutine per client, one JSON object of results on stdout.
//
// It must cost far less than a server does, because both share the machine: requests are formatted into one buffer, bodies are
// shared, responses are read without parsing more than status and length. Its own CPU time is reported, so that a reader can see that.
// PUT and GET work on numbered keys below a prefix; GET reads what a PUT run of the same prefix and count wrote.
package main

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const region = "us-east-1"
const unsigned = "UNSIGNED-PAYLOAD"

type options struct {
	address, accessKey, secretKey, bucket, prefix, operation string
	size                                                     int
	clients, keys                                            int
	seconds                                                  float64
	operationsMax                                            int64
	signed, once                                             bool
}

type result struct {
	Operation        string  `json:"operation"`
	Size             int     `json:"size"`
	Clients          int     `json:"clients"`
	Operations       int64   `json:"operations"`
	Errors           int64   `json:"errors"`
	FirstError       string  `json:"first_error"`
	Seconds          float64 `json:"seconds"`
	PerSecond        float64 `json:"per_second"`
	MebibytesPerSec  float64 `json:"mebibytes_per_second"`
	P50Milliseconds  float64 `json:"p50_ms"`
	P99Milliseconds  float64 `json:"p99_ms"`
	ClientCPUSeconds float64 `json:"client_cpu_seconds"`
}

func parse() options {
	var o options
	flag.StringVar(&o.address, "address", "127.0.0.1:9000", "host:port")
	flag.StringVar(&o.accessKey, "access-key", "", "")
	flag.StringVar(&o.secretKey, "secret-key", "", "")
	flag.StringVar(&o.bucket, "bucket", "bench", "")
	flag.StringVar(&o.prefix, "prefix", "k", "keys are PREFIX/NUMBER")
	flag.StringVar(&o.operation, "operation", "put", "bucket, put, get or delete")
	flag.IntVar(&o.size, "size", 4096, "bytes of a body")
	flag.IntVar(&o.clients, "clients", 1, "connections")
	flag.IntVar(&o.keys, "keys", 1000, "distinct keys; each client walks its share")
	flag.Float64Var(&o.seconds, "seconds", 5, "ends after so long")
	flag.Int64Var(&o.operationsMax, "operations", 1<<62, "or after so many operations")
	flag.BoolVar(&o.signed, "signed", false, "sign the payload's SHA-256 (computed once per body) instead of UNSIGNED-PAYLOAD")
	flag.BoolVar(&o.once, "once", false, "touch every key exactly once, however long it takes")
	flag.Parse()
	return o
}

func sum(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// client is one connection with what it needs to sign and read.
type client struct {
	o           options
	connection  net.Conn
	reader      *bufio.Reader
	request     []byte
	signingKey  []byte
	day, scope  string
	body        []byte
	payload     string
	sink        []byte
	nanoseconds []int64
}

func newClient(o options, body []byte) *client {
	now := time.Now().UTC()
	day := now.Format("20060102")
	key := sum(sum(sum(sum([]byte("AWS4"+o.secretKey), day), region), "s3"), "aws4_request")
	c := &client{o: o, signingKey: key, day: day, scope: day + "/" + region + "/s3/aws4_request", body: body, payload: unsigned, sink: make([]byte, 1<<20)}
	if o.signed {
		digest := sha256.Sum256(body)
		c.payload = hex.EncodeToString(digest[:])
	}
	return c
}

func (c *client) connect() error {
	if c.connection != nil {
		return nil
	}
	connection, err := net.DialTimeout("tcp", c.o.address, 10*time.Second)
	if err != nil {
		return err
	}
	c.connection, c.reader = connection, bufio.NewReaderSize(connection, 64<<10)
	return nil
}

func (c *client) close() {
	if c.connection != nil {
		c.connection.Close()
		c.connection = nil
	}
}

// do sends one signed request and reads the whole answer.
func (c *client) do(method, path string, body []byte) error {
	if err := c.connect(); err != nil {
		return err
	}
	stamp := time.Now().UTC().Format("20060102T150405Z")
	payload := c.payload
	if len(body) == 0 {
		payload = unsigned
	}
	canonical := method + "\n" + path + "\n\nhost:" + c.o.address + "\nx-amz-content-sha256:" + payload + "\nx-amz-date:" + stamp +
		"\n\nhost;x-amz-content-sha256;x-amz-date\n" + payload
	hashed := sha256.Sum256([]byte(canonical))
	signature := hex.EncodeToString(sum(c.signingKey, "AWS4-HMAC-SHA256\n"+stamp+"\n"+c.scope+"\n"+hex.EncodeToString(hashed[:])))
	r := append(c.request[:0], method...)
	r = append(append(append(r, ' '), path...), " HTTP/1.1\r\nHost: "...)
	r = append(append(r, c.o.address...), "\r\nx-amz-content-sha256: "...)
	r = append(append(r, payload...), "\r\nx-amz-date: "...)
	r = append(append(r, stamp...), "\r\nAuthorization: AWS4-HMAC-SHA256 Credential="...)
	r = append(append(append(append(r, c.o.accessKey...), '/'), c.scope...), ",SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature="...)
	r = append(append(r, signature...), "\r\n"...)
	if method == "PUT" {
		r = append(strconv.AppendInt(append(r, "Content-Length: "...), int64(len(body)), 10), "\r\n"...)
	}
	r = append(r, "\r\n"...)
	if len(body) <= 64<<10 {
		r = append(r, body...)
		body = nil
	}
	c.request = r
	if _, err := c.connection.Write(r); err != nil {
		c.close()
		return err
	}
	if len(body) > 0 {
		if _, err := c.connection.Write(body); err != nil {
			c.close()
			return err
		}
	}
	err := c.answer(method)
	if err != nil {
		c.close()
	}
	return err
}

func (c *client) answer(method string) error {
	status, length, ends, err := c.head()
	if err != nil {
		return err
	}
	if status == 204 || status == 304 {
		length = 0
	}
	if length < 0 {
		return fmt.Errorf("answer %d without Content-Length", status)
	}
	if status >= 300 {
		text := make([]byte, min(length, 2000))
		io.ReadFull(c.reader, text)
		return fmt.Errorf("answer %d: %s", status, text)
	}
	if method == "GET" && length != c.o.size {
		return fmt.Errorf("GET answered %d bytes, not %d", length, c.o.size)
	}
	buffered, _ := c.reader.Discard(min(length, c.reader.Buffered()))
	if err := c.discard(length - buffered); err != nil {
		return err
	}
	if ends {
		c.close()
	}
	return nil
}

// discard drops body bytes in the kernel (MSG_TRUNC on TCP copies nothing): reading 64 MiB must not cost the client what sending it costs the server.
func (c *client) discard(length int) error {
	if length == 0 {
		return nil
	}
	raw, err := c.connection.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	for length > 0 {
		var n int
		var failure error
		err := raw.Read(func(fd uintptr) bool {
			n, _, failure = syscall.Recvfrom(int(fd), c.sink[:min(length, len(c.sink))], syscall.MSG_TRUNC)
			return failure != syscall.EAGAIN && failure != syscall.EINTR
		})
		if err == nil {
			err = failure
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		length -= n
	}
	return nil
}

// head reads status line and headers; length is -1 if the answer names none.
func (c *client) head() (status, length int, ends bool, err error) {
	length = -1
	for first := true; ; first = false {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return 0, 0, false, err
		}
		text := strings.TrimRight(string(line), "\r\n")
		if first {
			if len(text) < 12 {
				return 0, 0, false, fmt.Errorf("bad status line %q", text)
			}
			if status, err = strconv.Atoi(text[9:12]); err != nil {
				return 0, 0, false, err
			}
			continue
		}
		if text == "" {
			return status, length, ends, nil
		}
		name, value, _ := strings.Cut(text, ":")
		switch strings.ToLower(name) {
		case "content-length":
			length, _ = strconv.Atoi(strings.TrimSpace(value))
		case "connection":
			ends = strings.EqualFold(strings.TrimSpace(value), "close")
		}
	}
}

func (c *client) path(number int) string {
	return "/" + c.o.bucket + "/" + c.o.prefix + "/" + fmt.Sprintf("%07d", number)
}

// run performs operations until the deadline; keys are this client's share, in a shuffled order for GET.
func (c *client) run(index int, deadline time.Time, budget *atomic.Int64, errors *atomic.Int64, firstError *atomic.Value) {
	defer c.close()
	share := []int{}
	for number := index; number < c.o.keys; number += c.o.clients {
		share = append(share, number)
	}
	if len(share) == 0 {
		return
	}
	if c.o.operation == "get" {
		rand.New(rand.NewSource(int64(index))).Shuffle(len(share), func(a, b int) { share[a], share[b] = share[b], share[a] })
	}
	method := map[string]string{"put": "PUT", "get": "GET", "delete": "DELETE"}[c.o.operation]
	var body []byte
	if method == "PUT" {
		body = c.body
	}
	for at := 0; ; at++ {
		if o := c.o; o.once && at == len(share) || !o.once && (budget.Add(-1) < 0 || time.Now().After(deadline)) {
			return
		}
		began := time.Now()
		if err := c.do(method, c.path(share[at%len(share)]), body); err != nil {
			errors.Add(1)
			firstError.CompareAndSwap(nil, err.Error())
			if errors.Load() > 100 {
				return
			}
			continue
		}
		c.nanoseconds = append(c.nanoseconds, int64(time.Since(began)))
	}
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Sec+usage.Stime.Sec) + float64(usage.Utime.Usec+usage.Stime.Usec)/1e6
}

func main() {
	o := parse()
	body := make([]byte, o.size)
	rand.New(rand.NewSource(1)).Read(body)
	if o.operation == "bucket" {
		if err := newClient(o, nil).do("PUT", "/"+o.bucket, nil); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	clients := make([]*client, o.clients)
	for index := range clients {
		clients[index] = newClient(o, body)
	}
	var budget, errors atomic.Int64
	var firstError atomic.Value
	budget.Store(o.operationsMax)
	var group sync.WaitGroup
	began, cpu := time.Now(), cpuSeconds()
	deadline := began.Add(time.Duration(o.seconds * float64(time.Second)))
	for index, c := range clients {
		group.Add(1)
		go func() {
			defer group.Done()
			c.run(index, deadline, &budget, &errors, &firstError)
		}()
	}
	group.Wait()
	report(o, clients, time.Since(began).Seconds(), cpuSeconds()-cpu, errors.Load(), &firstError)
}

func report(o options, clients []*client, seconds, cpu float64, errors int64, firstError *atomic.Value) {
	var all []int64
	for _, c := range clients {
		all = append(all, c.nanoseconds...)
	}
	sort.Slice(all, func(a, b int) bool { return all[a] < all[b] })
	at := func(fraction float64) float64 {
		if len(all) == 0 {
			return 0
		}
		return float64(all[int(fraction*float64(len(all)-1))]) / 1e6
	}
	text, _ := firstError.Load().(string)
	r := result{Operation: o.operation, Size: o.size, Clients: o.clients, Operations: int64(len(all)), Errors: errors, FirstError: text,
		Seconds: seconds, PerSecond: float64(len(all)) / seconds, MebibytesPerSec: float64(len(all)) * float64(o.size) / seconds / (1 << 20),
		P50Milliseconds: at(0.5), P99Milliseconds: at(0.99), ClientCPUSeconds: cpu}
	json.NewEncoder(os.Stdout).Encode(r)
	if errors > 0 {
		os.Exit(1)
	}
}
