// A receiver: WEBHOOK_SECRETS="my-secret-123" go run server.go verify.go
//
// While a secret is rotated, both stand there with a space between. Listens on 127.0.0.1, on PORT or
// 9000.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const bodyMax, seenMax = 1024 * 1024, 100_000

type event struct{ ID, Type string }

type receiver struct {
	keys  [][]byte
	lock  sync.Mutex
	seen  map[string]bool
	order []string
}

// Stores it and returns; the work comes later. After an error, the event comes again.
func accept(event event) error {
	_, err := fmt.Println("accepted", event.Type, event.ID)
	return err
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	// As it came: parsed and written again, it has other bytes.
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, bodyMax))
	if err != nil {
		http.Error(w, "too large, or broken off", http.StatusRequestEntityTooLarge)
		return
	}
	if why := refusal(request.Header, body, r.keys, time.Now().Unix()); why != "" {
		http.Error(w, why, http.StatusUnauthorized)
		return
	}
	if err := r.once(request.Header.Get("webhook-id"), body); err != nil {
		http.Error(w, "failed", http.StatusInternalServerError)
		return
	}
	fmt.Fprint(w, "OK")
}

// The same event, come twice at once, is accepted once.
func (r *receiver) once(id string, body []byte) error {
	r.lock.Lock()
	defer r.lock.Unlock()
	if r.seen[id] {
		return nil
	}
	var event event
	if err := json.Unmarshal(body, &event); err != nil {
		return err
	}
	if err := accept(event); err != nil {
		return err
	}
	r.seen[id], r.order = true, append(r.order, id)
	if len(r.order) > seenMax {
		delete(r.seen, r.order[0])
		r.order = r.order[1:]
	}
	return nil
}

func main() {
	r := &receiver{seen: map[string]bool{}}
	for _, secret := range strings.Fields(os.Getenv("WEBHOOK_SECRETS")) {
		key, err := keyOf(secret)
		if err != nil {
			log.Fatal(err)
		}
		r.keys = append(r.keys, key)
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "9000"
	}
	server := http.Server{Addr: "127.0.0.1:" + port, Handler: r, ReadTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}
