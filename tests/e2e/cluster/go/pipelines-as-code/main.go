// Says what Pipelines-as-Code makes of a repository's `.tekton/` when something happens: its own reader and matcher.
//
// Each line of stdin is a JSON object: `tekton`, the YAML; `event` (push, pull_request); `ref`; `forge` (github,
// gitlab); `body`, what the forge sends; `files`, what the forge says was changed. Each line of stdout is a JSON list of
// the PipelineRuns that start, as they are created.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	"github.com/google/go-github/v81/github"
	"github.com/openshift-pipelines/pipelines-as-code/pkg/changedfiles"
	"github.com/openshift-pipelines/pipelines-as-code/pkg/events"
	"github.com/openshift-pipelines/pipelines-as-code/pkg/matcher"
	"github.com/openshift-pipelines/pipelines-as-code/pkg/params"
	"github.com/openshift-pipelines/pipelines-as-code/pkg/params/info"
	"github.com/openshift-pipelines/pipelines-as-code/pkg/params/triggertype"
	"github.com/openshift-pipelines/pipelines-as-code/pkg/provider"
	"github.com/openshift-pipelines/pipelines-as-code/pkg/resolve"
	"github.com/openshift-pipelines/pipelines-as-code/pkg/templates"
	tektonv1 "github.com/tektoncd/pipeline/pkg/apis/pipeline/v1"
	gitlab "gitlab.com/gitlab-org/api/client-go"
	"go.uber.org/zap"
)

type happened struct {
	Tekton string          `json:"tekton"`
	Event  string          `json:"event"`
	Ref    string          `json:"ref"`
	Forge  string          `json:"forge"`
	Body   json.RawMessage `json:"body"`
	Files  []string        `json:"files"`
}

// forge is asked for nothing but the files that were changed.
type forge struct {
	provider.Interface
	files []string
}

func (f forge) GetFiles(context.Context, *info.Event) (changedfiles.ChangedFiles, error) {
	return changedfiles.ChangedFiles{All: f.files}, nil
}

func starts(ctx context.Context, one happened) ([]*tektonv1.PipelineRun, error) {
	log := zap.New(zap.NewNop().Core()).Sugar()
	var body any = &github.PushEvent{}
	if one.Forge == "gitlab" {
		body = &gitlab.PushEvent{}
	}
	if one.Event != "push" {
		body = &map[string]any{}
	}
	if err := json.Unmarshal(one.Body, body); err != nil {
		return nil, err
	}
	event := &info.Event{
		Event: body, EventType: one.Event, TriggerTarget: triggertype.Trigger(one.Event),
		BaseBranch: one.Ref, HeadBranch: one.Ref, Request: &info.Request{Header: http.Header{}},
	}
	written := templates.ReplacePlaceHoldersVariables(one.Tekton, map[string]string{}, body, http.Header{}, map[string]any{})
	types, err := resolve.ReadTektonTypes(ctx, log, written)
	if err != nil {
		return nil, err
	}
	if len(types.ValidationErrors) > 0 {
		return nil, types.ValidationErrors[0].Err
	}
	cs := params.New()
	runs, err := resolve.Resolve(ctx, cs, log, forge{}, types, event, &resolve.Opts{GenerateName: true})
	if err != nil {
		return nil, err
	}
	emitter := events.NewEventEmitter(nil, log)
	matched, err := matcher.MatchPipelinerunByAnnotation(ctx, log, runs, cs, event, forge{files: one.Files}, emitter, nil, false)
	found := []*tektonv1.PipelineRun{}
	for _, match := range matched {
		found = append(found, match.PipelineRun)
	}
	if len(found) == 0 {
		return found, nil // nothing matches: the error says so
	}
	return found, err
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var one happened
		err := json.Unmarshal(lines.Bytes(), &one)
		var found []*tektonv1.PipelineRun
		if err == nil {
			found, err = starts(context.Background(), one)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		answer, _ := json.Marshal(found)
		fmt.Println(string(answer))
	}
}
