package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// fileBytesMax bounds the configuration file. All settings with a page of comment
// each are far below; more is another file, named by mistake.
const fileBytesMax = 1 << 20

// readFile reads the configuration file that was named by a flag or a variable.
func readFile(file given) (map[string]given, error) {
	path := file.texts[0]
	raw, err := readBounded(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s %q: there is no such file", file.place, path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", file.place, path, err)
	}
	return parseFile(path, raw)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, fileBytesMax+1))
	if err == nil && len(raw) > fileBytesMax {
		return nil, fmt.Errorf("it is larger than %d KiB, which no configuration is", fileBytesMax>>10)
	}
	return raw, err
}

// parseFile reads YAML without decoding it into types: the texts stay what they
// were, with their lines, and are read like those of flags. So 0x10 or 1_000 are
// not numbers here either, and a duration needs no quotes.
func parseFile(path string, raw []byte) (map[string]given, error) {
	docs := yaml.NewDecoder(strings.NewReader(string(raw)))
	var doc, more yaml.Node
	err := docs.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, nil // empty, or nothing but comments
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not YAML: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := docs.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: there is a second YAML document in it: give one", path)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: not settings: give one in each line, such as listen: 127.0.0.1:7001", path, root.Line)
	}
	all := make(map[string]given)
	first := make(map[string]int) // line of each key
	var errs []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		place := fmt.Sprintf("%s:%d", path, key.Line)
		s := Find(key.Value)
		switch {
		case key.Kind != yaml.ScalarNode:
			errs = append(errs, fmt.Errorf("%s: the key is not a name: give the name of a setting", place))
			continue
		case s == nil:
			errs = append(errs, fmt.Errorf("%s: %q is no setting: did you mean %s?", place, key.Value, nearest(key.Value, fileKeys())))
			continue
		case !s.inFile():
			errs = append(errs, fmt.Errorf("%s: %s cannot be in the file itself: give it as a flag, or as %s", place, s.Name, s.Env()))
			continue
		case first[s.Name] != 0:
			errs = append(errs, fmt.Errorf("%s: %s is given twice, first in line %d: remove one", place, s.Name, first[s.Name]))
			continue
		}
		first[s.Name] = key.Line
		texts, err := textsOf(s, value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s %w", place, s.Name, err))
			continue
		}
		if len(texts) > 0 {
			all[s.Name] = given{texts, File, place}
		}
	}
	return all, errors.Join(errs...)
}

// textsOf returns the value of a setting, or all those of a list.
func textsOf(s *Setting, value *yaml.Node) ([]string, error) {
	if !s.List {
		text, err := scalar(value)
		if err != nil {
			return nil, fmt.Errorf("%w: give one value, such as %s: %s", err, s.Name, s.example())
		}
		return []string{text}, nil
	}
	if value.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("is not a list: give one, such as %s: [%s]", s.Name, s.example())
	}
	var texts []string
	for _, item := range value.Content {
		text, err := scalar(item)
		if err != nil {
			return nil, fmt.Errorf("has in line %d something that %w: give a list, such as [%s]", item.Line, err, s.example())
		}
		texts = append(texts, text)
	}
	return texts, nil
}

func scalar(n *yaml.Node) (string, error) {
	switch {
	case n.Kind == yaml.AliasNode:
		return "", errors.New("is a YAML alias, which is not read here")
	case n.Kind == yaml.SequenceNode:
		return "", errors.New("is a list")
	case n.Kind == yaml.MappingNode:
		return "", errors.New("is a mapping")
	case n.Style&yaml.TaggedStyle != 0:
		return "", fmt.Errorf("has the YAML tag %s, which is not read here", n.Tag)
	case n.ShortTag() == "!!null":
		return "", errors.New("has no value")
	}
	return n.Value, nil
}

// example is a value as an error shows it.
func (s *Setting) example() string {
	switch {
	case s.Default != "":
		return s.Default
	case s.List:
		return "127.0.0.1:7102"
	case s.Name == "zone":
		return "rack-7"
	}
	return "/var/lib/syntropy"
}
