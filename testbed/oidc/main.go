// Program oidc is a real OpenID Connect provider on a loopback address: the certified
// library github.com/zitadel/oidc with its example's login pages and in-memory storage,
// and users who belong to groups. The sign-on's contract runs against it; nothing here
// is compiled into the product.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// store is the example's storage, with a claim for the groups of a user.
type store struct {
	*storage.Storage
	groups map[string][]string
}

func (s *store) SetUserinfoFromRequest(ctx context.Context, info *oidc.UserInfo, request op.IDTokenRequest, scopes []string) error {
	if err := s.Storage.SetUserinfoFromRequest(ctx, info, request, scopes); err != nil {
		return err
	}
	s.addGroups(info)
	return nil
}

func (s *store) SetUserinfoFromToken(ctx context.Context, info *oidc.UserInfo, tokenID, subject, origin string) error {
	if err := s.Storage.SetUserinfoFromToken(ctx, info, tokenID, subject, origin); err != nil {
		return err
	}
	s.addGroups(info)
	return nil
}

func (s *store) addGroups(info *oidc.UserInfo) {
	if groups, ok := s.groups[info.Subject]; ok {
		info.AppendClaims("groups", groups)
	}
}

func readGroups(path string) (map[string][]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	users := map[string]struct{ Groups []string }{}
	if err := json.Unmarshal(text, &users); err != nil {
		return nil, err
	}
	groups := map[string][]string{}
	for id, user := range users {
		if user.Groups != nil {
			groups[id] = user.Groups
		}
	}
	return groups, nil
}

func main() {
	listen := flag.String("listen", "", "loopback address and port")
	users := flag.String("users", "", "file of users, as JSON")
	clientID := flag.String("client-id", "", "the one client")
	clientSecret := flag.String("client-secret", "", "its secret; none for a public client")
	redirectURI := flag.String("redirect-uri", "", "where its users come back to")
	flag.Parse()

	userStore, err := storage.StoreFromFile(*users)
	if err != nil {
		log.Fatal(err)
	}
	groups, err := readGroups(*users)
	if err != nil {
		log.Fatal(err)
	}
	if *clientSecret == "" {
		storage.RegisterClients(storage.NativeClient(*clientID, *redirectURI))
	} else {
		storage.RegisterClients(storage.WebClient(*clientID, *clientSecret, *redirectURI))
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	provider := exampleop.SetupServer(
		"http://"+*listen, &store{storage.NewStorage(userStore), groups}, logger, false,
	)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: provider, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.Serve(listener))
}
