// Command gitops says of each Kubernetes object of a list what two GitOps tools would: kstatus, by which Flux waits,
// and Argo CD's health checks, run by the Lua that Argo CD runs them with.
//
// It reads {"lua": "...", "objects": [...]} from standard input and writes one answer a line, in order.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type question struct {
	Lua     string           `json:"lua"`
	Objects []map[string]any `json:"objects"`
}

type answer struct {
	Kstatus string `json:"kstatus"`
	Argo    string `json:"argo"`
	Message string `json:"message"`
}

func main() {
	log.SetFlags(0)
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		log.Fatal(err)
	}
	out := json.NewEncoder(os.Stdout)
	for number, object := range asked.Objects {
		said, err := judge(asked.Lua, object)
		if err == nil {
			err = out.Encode(said)
		}
		if err != nil {
			log.Fatalf("object %d: %v", number, err)
		}
	}
}

func judge(script string, object map[string]any) (answer, error) {
	// Integers arrive as float64, which unstructured objects do not take for a generation.
	whole := &unstructured.Unstructured{}
	text, err := json.Marshal(object)
	if err != nil {
		return answer{}, err
	}
	if err := whole.UnmarshalJSON(text); err != nil {
		return answer{}, err
	}
	computed, err := status.Compute(whole)
	if err != nil {
		return answer{}, fmt.Errorf("kstatus: %w", err)
	}
	health, message, err := argo(script, object)
	if err != nil {
		return answer{}, fmt.Errorf("health.lua: %w", err)
	}
	return answer{Kstatus: computed.Status.String(), Argo: health, Message: message}, nil
}

// libraries are those that Argo CD opens for a health check, but for its reduced os, in its order.
var libraries = []struct {
	name string
	open lua.LGFunction
}{
	{lua.LoadLibName, lua.OpenPackage},
	{lua.BaseLibName, lua.OpenBase},
	{lua.TabLibName, lua.OpenTable},
}

// argo runs the script as Argo CD does: the object is the global obj, and the answer is a table.
func argo(script string, object map[string]any) (string, string, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range libraries {
		call := lua.P{Fn: state.NewFunction(library.open), NRet: 0, Protect: true}
		if err := state.CallByParam(call, lua.LString(library.name)); err != nil {
			return "", "", err
		}
	}
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(script); err != nil {
		return "", "", err
	}
	answered, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", "", fmt.Errorf("returned %s, not a table", state.Get(-1).Type())
	}
	return lua.LVAsString(answered.RawGetString("status")), lua.LVAsString(answered.RawGetString("message")), nil
}

// value is the Lua form of a JSON value.
func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case bool:
		return lua.LBool(from)
	case float64:
		return lua.LNumber(from)
	case string:
		return lua.LString(from)
	case []any:
		table := state.NewTable()
		for _, item := range from {
			table.Append(value(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, item := range from {
			table.RawSetString(key, value(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}
