package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"syntropy/internal/topology"
)

// Flags are settings as flags of a command.
type Flags struct{ values []*flagValue }

// flagValue notes the texts that a command line gives. It does not look at them,
// so that an error is worded alike wherever a value comes from.
type flagValue struct {
	setting *Setting
	texts   []string
}

func (v *flagValue) String() string { return strings.Join(v.texts, ", ") }

// Type is what help shows as the name of the value.
func (v *flagValue) Type() string {
	if v.setting.Switch {
		return "bool"
	}
	return v.setting.Takes
}

// Set implements pflag.Value. The last value counts, as usual for flags, except
// of those that are lists.
func (v *flagValue) Set(text string) error {
	if !v.setting.List {
		v.texts = []string{text}
		return nil
	}
	v.texts = append(v.texts, splitList(text)...)
	return nil
}

// splitList separates the values of a list in one text.
func splitList(text string) []string {
	parts := strings.Split(text, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// AddFlags adds the settings of these names to fs, or all settings if there is
// none, in the order of the reference. A name that is no setting is a mistake in
// the program, and panics.
func AddFlags(fs *pflag.FlagSet, names ...string) *Flags {
	for _, name := range names {
		if Find(name) == nil {
			panic("config: there is no setting " + name)
		}
	}
	f := new(Flags)
	for _, s := range settings {
		if len(names) > 0 && !slices.Contains(names, s.Name) {
			continue
		}
		v := &flagValue{setting: s}
		flag := fs.VarPF(v, s.Name, "", s.Usage)
		flag.Hidden = s.Hidden
		if flag.DefValue = s.Default; s.Switch {
			flag.NoOptDefVal, flag.DefValue = "true", "false"
		}
		f.values = append(f.values, v)
	}
	return f
}

// Args returns the flags that were given, as a command line gives them.
func (f *Flags) Args() (args []string) {
	for _, v := range f.values {
		for _, text := range v.texts {
			args = append(args, "--"+v.setting.Name+"="+text)
		}
	}
	return args
}

// given is what one source says of one setting.
type given struct {
	texts  []string
	source Source
	place  string
}

// Resolve returns what counts of flags, environment (as os.Environ returns it)
// and the file that one of them names. An error names all that is wrong.
//
// An empty variable counts as not given, since many tools cannot leave one out.
func (f *Flags) Resolve(environ []string) (*Config, error) {
	found := make(map[string]given) // by the name of the setting
	var errs []error
	for _, v := range f.values {
		if len(v.texts) > 0 {
			found[v.setting.Name] = given{v.texts, Flag, "--" + v.setting.Name}
		}
	}
	take := func(all map[string]given) {
		for name, g := range all {
			if _, ok := found[name]; !ok {
				found[name] = g
			}
		}
	}
	fromEnv, err := readEnvironment(environ)
	errs = append(errs, err)
	take(fromEnv)
	if file, ok := found[fileSetting]; ok {
		fromFile, err := readFile(file)
		errs = append(errs, err)
		take(fromFile)
	}
	c := &Config{Cluster: topology.DefaultSettings()} // some of it is no setting
	for _, s := range settings {
		g, ok := found[s.Name]
		switch {
		case ok:
		case s.Default == "":
			c.values = append(c.values, Value{Setting: s})
			continue
		default:
			g = given{texts: []string{s.Default}}
		}
		text := strings.Join(g.texts, ", ")
		if err := s.read(c, g.texts); err != nil {
			errs = append(errs, fmt.Errorf("%s %q: %w", g.name(s), text, err))
		}
		c.values = append(c.values, Value{s, text, g.source, g.place})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

// name is how an error names a setting that was given so.
func (g given) name(s *Setting) string {
	if g.source == File {
		return g.place + ": " + s.Name
	}
	return g.place
}

// otherVariables begin with the prefix and are none of this package's business.
var otherVariables = []string{
	"SYNTROPY_ADMIN", // the address that commands ask when --admin is not given
}

func readEnvironment(environ []string) (map[string]given, error) {
	all := make(map[string]given)
	var errs []error
	for _, line := range environ {
		name, text, _ := strings.Cut(line, "=")
		if !strings.HasPrefix(name, Prefix) || slices.Contains(otherVariables, name) {
			continue
		}
		i := slices.IndexFunc(settings, func(s *Setting) bool { return s.Env() == name })
		switch {
		case i < 0:
			errs = append(errs, fmt.Errorf("the environment variable %s is no setting: did you mean %s?", name, nearest(name, envNames())))
		case text == "":
		case settings[i].List:
			all[settings[i].Name] = given{splitList(text), Environment, name}
		default:
			all[settings[i].Name] = given{[]string{text}, Environment, name}
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return all, errors.Join(errs...)
}

func envNames() (names []string) {
	for _, s := range settings {
		if !s.Hidden {
			names = append(names, s.Env())
		}
	}
	return append(names, otherVariables...)
}

func fileKeys() (names []string) {
	for _, s := range settings {
		if !s.Hidden && s.inFile() {
			names = append(names, s.Name)
		}
	}
	return names
}

// nearest returns the name that takes the fewest changes of a letter to get to.
func nearest(name string, names []string) string {
	name = strings.ToLower(name)
	best, fewest := "", -1
	for _, n := range names {
		if d := distance(name, strings.ToLower(n)); fewest < 0 || d < fewest {
			best, fewest = n, d
		}
	}
	return best
}

// distance is the number of bytes to insert, remove or replace between a and b;
// hyphen and underscore are alike.
func distance(a, b string) int {
	a, b = strings.ReplaceAll(a, "_", "-"), strings.ReplaceAll(b, "_", "-")
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			row[j+1] = min(cost, above+1, row[j]+1)
			diagonal = above
		}
	}
	return row[len(b)]
}
