// The handler for Go over vectors: says of each whether it accepts it; run.sh says how to run it.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

type vector struct {
	Name, Scheme string
	Secrets      []string
	Headers      map[string]string
	Body         []byte
	Now          int64
}

func (v vector) isAccepted() bool {
	var keys [][]byte
	for _, secret := range v.Secrets {
		key, err := keyOf(secret)
		if err != nil {
			return false
		}
		keys = append(keys, key)
	}
	header := http.Header{}
	for name, value := range v.Headers {
		header.Set(name, value)
	}
	return refusal(header, v.Body, keys, v.Now) == ""
}

func main() {
	file, err := os.Open(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for decoder := json.NewDecoder(file); ; {
		var v vector
		if err := decoder.Decode(&v); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		if v.Scheme != "standard" {
			continue
		}
		verdict := "refused"
		if v.isAccepted() {
			verdict = "accepted"
		}
		fmt.Println(v.Name, verdict)
	}
}
