// Judges Argo objects with Argo's own validator, the one behind `argo lint --offline`.
//
// Each line of stdin is a JSON string: one YAML stream, whose WorkflowTemplates its Workflows may refer to. Each line of
// stdout is the JSON list of what is wrong with it, empty when nothing is.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	wfv1 "github.com/argoproj/argo-workflows/v4/pkg/apis/workflow/v1alpha1"
	"github.com/argoproj/argo-workflows/v4/util/logging"
	"github.com/argoproj/argo-workflows/v4/workflow/common"
	"github.com/argoproj/argo-workflows/v4/workflow/validate"
)

type templates map[string]*wfv1.WorkflowTemplate

func (t templates) Get(_ context.Context, name string) (*wfv1.WorkflowTemplate, error) {
	if found, ok := t[name]; ok {
		return found, nil
	}
	return nil, fmt.Errorf("there is no WorkflowTemplate %q", name)
}

type noClusterTemplates struct{}

func (noClusterTemplates) Get(_ context.Context, name string) (*wfv1.ClusterWorkflowTemplate, error) {
	return nil, fmt.Errorf("there is no ClusterWorkflowTemplate %q", name)
}

func judge(ctx context.Context, stream string) []string {
	problems := []string{}
	installed := templates{}
	parsed := common.ParseObjects(ctx, []byte(stream), true)
	if len(parsed) == 0 {
		problems = append(problems, "no object in it")
	}
	for _, one := range parsed {
		if one.Err != nil {
			problems = append(problems, one.Err.Error())
		}
		if template, ok := one.Object.(*wfv1.WorkflowTemplate); ok {
			installed[template.Name] = template
		}
	}
	for _, one := range parsed {
		var err error
		options := validate.ValidateOpts{Lint: true}
		switch object := one.Object.(type) {
		case *wfv1.WorkflowTemplate:
			err = validate.ValidateWorkflowTemplate(ctx, installed, noClusterTemplates{}, object, nil, options)
		case *wfv1.Workflow:
			// As on submission: what is not set has to be set by then.
			err = validate.ValidateWorkflow(ctx, installed, noClusterTemplates{}, object, nil, validate.ValidateOpts{})
		default:
			err = fmt.Errorf("not an object of Argo Workflows that is judged here: %T", one.Object)
		}
		if err != nil {
			problems = append(problems, err.Error())
		}
	}
	return problems
}

func main() {
	ctx := logging.WithLogger(context.Background(), logging.NewSlogLogger(logging.Error, logging.Text))
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var stream string
		if err := json.Unmarshal(lines.Bytes(), &stream); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		if err := answers.Encode(judge(ctx, stream)); err != nil {
			os.Exit(2)
		}
	}
	if lines.Err() != nil {
		fmt.Fprintln(os.Stderr, lines.Err())
		os.Exit(2)
	}
}
