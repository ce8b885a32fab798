//go:build binaries

// Package helm pins, in go.mod and go.sum, the Helm that renders the shipped chart in
// tests. Nothing here is compiled into the product.
package helm

import _ "helm.sh/helm/v4/cmd/helm"
