// Judges Tekton objects as Tekton's admission webhook does: strict decoding, defaults, validation.
//
// Each line of stdin is a JSON string: one YAML stream. Each line of stdout is the JSON list of what is wrong with it,
// empty when nothing is. With the argument "read", each line of stdout is instead what Kubernetes' YAML reader makes of
// the stream: a JSON document, or null where it cannot be read.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"

	v1 "github.com/tektoncd/pipeline/pkg/apis/pipeline/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	"sigs.k8s.io/yaml"
)

type judged interface {
	metav1.Object
	SetDefaults(context.Context)
	Validate(context.Context) *apis.FieldError
}

var kinds = map[string]func() judged{
	"Pipeline":    func() judged { return &v1.Pipeline{} },
	"PipelineRun": func() judged { return &v1.PipelineRun{} },
	"Task":        func() judged { return &v1.Task{} },
	"TaskRun":     func() judged { return &v1.TaskRun{} },
}

var separator = regexp.MustCompile(`(?m)^---\n`)

func judgeOne(text string) error {
	body, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return err
	}
	var meta metav1.TypeMeta
	if err := json.Unmarshal(body, &meta); err != nil {
		return err
	}
	create, known := kinds[meta.Kind]
	if !known || meta.APIVersion != "tekton.dev/v1" {
		return fmt.Errorf("not an object of Tekton that is judged here: %s %s", meta.APIVersion, meta.Kind)
	}
	object := create()
	strict := json.NewDecoder(bytes.NewReader(body))
	strict.DisallowUnknownFields()
	if err := strict.Decode(object); err != nil {
		return err
	}
	if object.GetName() == "" && object.GetGenerateName() != "" {
		object.SetName(object.GetGenerateName() + "x") // the API server has given one by the time the webhook sees it
	}
	ctx := apis.WithinCreate(context.Background())
	object.SetDefaults(ctx)
	if err := object.Validate(ctx); err != nil {
		return err
	}
	return nil
}

func judge(stream string) any {
	problems := []string{}
	seen := 0
	for _, text := range separator.Split(stream, -1) {
		if strings.TrimSpace(text) == "" {
			continue
		}
		seen++
		if err := judgeOne(text); err != nil {
			problems = append(problems, err.Error())
		}
	}
	if seen == 0 {
		problems = append(problems, "no object in it")
	}
	return problems
}

func read(stream string) any {
	document, err := yaml.YAMLToJSONStrict([]byte(stream))
	if err != nil {
		return nil
	}
	return json.RawMessage(document)
}

func main() {
	answer := judge
	if len(os.Args) == 2 && os.Args[1] == "read" {
		answer = read
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var stream string
		if err := json.Unmarshal(lines.Bytes(), &stream); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		if err := answers.Encode(answer(stream)); err != nil {
			os.Exit(2)
		}
	}
	if lines.Err() != nil {
		fmt.Fprintln(os.Stderr, lines.Err())
		os.Exit(2)
	}
}
