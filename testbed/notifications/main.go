// The notification engine of Argo CD, as its command line runs it, without the rest of Argo CD.
//
// Templates and triggers are rendered and sent by the engine's own code; `app` is the Application,
// as in Argo CD. What Argo CD adds for them besides (`repo`, `strings`, `time`) is missing here.
package main

import (
	"os"

	"github.com/argoproj/notifications-engine/pkg/api"
	"github.com/argoproj/notifications-engine/pkg/cmd"
	"github.com/argoproj/notifications-engine/pkg/services"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func main() {
	settings := api.Settings{
		ConfigMapName: "argocd-notifications-cm",
		SecretName:    "argocd-notifications-secret",
		InitGetVars: func(*api.Config, *v1.ConfigMap, *v1.Secret) (api.GetVars, error) {
			return func(app map[string]any, _ services.Destination) map[string]any {
				return map[string]any{"app": app}
			}, nil
		},
	}
	applications := schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "applications"}
	if cmd.NewToolsCommand("notifications", "notifications", applications, settings).Execute() != nil {
		os.Exit(1)
	}
}
