package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
)

// The bytes that a secret of a subscription signs with.
func keyOf(secret string) ([]byte, error) {
	if !strings.HasPrefix(secret, "whsec_") {
		return []byte(secret), nil
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err == nil && (len(key) < 24 || len(key) > 64) {
		err = errors.New("not a whole whsec_ secret")
	}
	return key, err
}

// Why a request is no genuine delivery, or "" if it is one. The body is as it came.
func refusal(header http.Header, body []byte, keys [][]byte, now int64) string {
	id, sentAt := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseUint(sentAt, 10, 40)
	if id == "" || strings.Contains(id, ".") || err != nil {
		return "webhook-id or webhook-timestamp is missing or unreadable"
	}
	if age := now - int64(seconds); age > 300 || age < -300 {
		return "signed more than 5 minutes from now"
	}
	for _, key := range keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + sentAt + "."))
		mac.Write(body)
		genuine := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		for _, entry := range strings.Split(header.Get("webhook-signature"), " ") {
			if hmac.Equal([]byte(entry), []byte(genuine)) {
				return ""
			}
		}
	}
	return "no signature in webhook-signature matches"
}
