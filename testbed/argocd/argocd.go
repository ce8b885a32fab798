//go:build binaries

// Package argocd pins, in go.mod and go.sum, the Argo CD that the GitOps tests run.
// Nothing here is compiled into the product.
package argocd

import _ "github.com/argoproj/argo-cd/v3/cmd"
