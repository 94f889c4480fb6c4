#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "parser.h"

namespace rnk::emu {
namespace {

constexpr size_t kMaxRegisters = size_t{1} << 20;
constexpr size_t kMaxScopes = 256;
constexpr int kMaxNesting = 8;

bool is_special_register(std::string_view w) {
  static constexpr std::string_view kPrefixes[] = {"%tid",
                                                   "%ntid",
                                                   "%ctaid",
                                                   "%nctaid",
                                                   "%laneid",
                                                   "%warpid",
                                                   "%nwarpid",
                                                   "%smid",
                                                   "%nsmid",
                                                   "%gridid",
                                                   "%lanemask_",
                                                   "%clock",
                                                   "%globaltimer",
                                                   "%dynamic_smem_size",
                                                   "%total_smem_size",
                                                   "%envreg",
                                                   "%reserved_smem_offset",
                                                   "%clusterid",
                                                   "%nclusterid",
                                                   "%cluster_",
                                                   "%is_explicit_cluster",
                                                   "%aggr_smem_size",
                                                   "%pm"};
  for (std::string_view p : kPrefixes)
    if (w.substr(0, p.size()) == p) return true;
  return false;
}

}  // namespace

void Parser::parse_body(Function& f) {
  expect("{");
  scopes_.assign(1, Scope{0, {}, {}, {}});
  f.scope_parent.assign(1, -1);
  while (!scopes_.empty()) {
    if (lexer_.peek().kind == Token::kEnd) fail("function without end");
    parse_body_item(f);
  }
}

void Parser::parse_body_item(Function& f) {
  if (accept("{")) {
    if (scopes_.size() >= kMaxScopes) fail("blocks nested too deeply");
    int id = static_cast<int>(f.scope_parent.size());
    f.scope_parent.push_back(scopes_.back().id);
    scopes_.push_back(Scope{id, {}, {}, {}});
    return;
  }
  if (accept("}")) return scopes_.pop_back();
  if (accept(";")) return;
  if (lexer_.peek().is("@")) return parse_statement(f, {});
  if (lexer_.peek().kind != Token::kWord) fail("expected an instruction");
  std::string_view word = lexer_.next().text;
  if (word[0] == '.') return parse_body_directive(f, word);
  if (accept(":")) return parse_label(f, std::string(word));
  parse_statement(f, word);
}

void Parser::parse_body_directive(Function& f, std::string_view word) {
  if (word == ".reg") return parse_registers(f);
  if (word == ".local") return parse_local(f, Space::kLocal);
  if (word == ".shared") return parse_local(f, Space::kShared);
  if (word == ".param") return parse_local(f, Space::kParam);
  if (word == ".loc") return parse_loc();
  if (word == ".pragma") {
    while (!accept(";")) {
      if (lexer_.next().kind == Token::kEnd) fail("expected ';'");
    }
    return;
  }
  fail("unknown directive '" + std::string(word) + "'");
}

void Parser::parse_registers(Function& f) {
  std::string type_word = expect_word();
  Type type = parse_type(std::string_view(type_word).substr(1));
  if (type == Type::kNone || type == Type::kB128) fail("unsupported register type " + type_word);
  do {
    std::string name = expect_word();
    size_t count = 1;
    int base = static_cast<int>(f.registers.size());
    if (accept("<")) {
      count = expect_integer();
      expect(">");
      scopes_.back().ranges[name] = {base, static_cast<int>(std::min(count, kMaxRegisters))};
    } else {
      scopes_.back().names[name] = base;
    }
    if (count > kMaxRegisters || f.registers.size() + count > kMaxRegisters)
      fail("too many registers");
    f.registers.insert(f.registers.end(), count, Register{type});
  } while (accept(","));
  expect(";");
}

void Parser::parse_local(Function& f, Space space) {
  Variable v = parse_variable(space, false);
  expect(";");
  std::string unique = v.name + "#" + std::to_string(scopes_.back().id);
  scopes_.back().locals[v.name] = unique;
  v.name = unique;
  f.local_index[unique] = static_cast<int>(f.locals.size());
  f.locals.push_back(std::move(v));
}

void Parser::parse_loc() {
  source_file_ = static_cast<int>(expect_integer());
  source_line_ = static_cast<int>(expect_integer());
  lexer_.skip_line();
}

void Parser::parse_label(Function& f, std::string name) {
  int scope = scopes_.back().id;
  if (accept(".branchtargets")) {
    std::vector<std::string> targets;
    do targets.push_back(expect_word());
    while (accept(","));
    expect(";");
    f.branch_targets[name] = std::move(targets);
    return;
  }
  if (accept(".callprototype") || accept(".calltargets")) {
    while (!accept(";")) {
      if (lexer_.next().kind == Token::kEnd) fail("expected ';'");
    }
    return;
  }
  int index = static_cast<int>(f.statements.size());
  if (!f.labels.emplace(std::make_pair(scope, name), index).second)
    fail("label '" + name + "' is defined twice");
}

int Parser::parse_guard(bool* negated) {
  expect("@");
  *negated = accept("!");
  std::string name = expect_word();
  int reg = find_register(name);
  if (reg < 0 || function_->registers[reg].type != Type::kPred)
    fail("'" + name + "' is not a predicate register");
  return reg;
}

void Parser::parse_statement(Function& f, std::string_view first) {
  Statement s;
  s.line = lexer_.peek().line;
  if (first.empty()) {
    s.guard = parse_guard(&s.guard_negated);
    s.line = lexer_.peek().line;
    if (lexer_.peek().kind != Token::kWord) fail("expected an opcode");
    first = lexer_.next().text;
  }
  s.opcode = first;
  s.scope = scopes_.back().id;
  s.source_file = source_file_;
  s.source_line = source_line_;
  if (!lexer_.peek().is(";")) {
    do s.args.push_back(parse_arg(0));
    while (accept(","));
  }
  expect(";");
  f.statements.push_back(std::move(s));
}

std::vector<Arg> Parser::parse_items(std::string_view close, int depth) {
  std::vector<Arg> items;
  if (depth > kMaxNesting) fail("operands nested too deeply");
  if (accept(close)) return items;
  do items.push_back(parse_arg(depth + 1));
  while (accept(","));
  expect(close);
  return items;
}

Arg Parser::parse_arg(int depth) {
  Arg a;
  if (accept("{")) {
    a.kind = Arg::kVector;
    a.items = parse_items("}", depth);
    return a;
  }
  if (accept("(")) {
    a.kind = Arg::kList;
    a.items = parse_items(")", depth);
    return a;
  }
  if (accept("[")) return parse_address();
  bool negated = accept("!");
  bool minus = !negated && accept("-");
  if (lexer_.peek().kind == Token::kNumber) return parse_number(lexer_.next().text, minus);
  if (minus || lexer_.peek().kind != Token::kWord) fail("expected an operand");
  a = parse_word_arg(lexer_.next().text);
  a.negated = negated;
  if (accept("|")) {
    if (lexer_.peek().kind != Token::kWord) fail("expected a register after '|'");
    a.second.push_back(parse_word_arg(lexer_.next().text));
  } else if (a.kind == Arg::kSymbol && accept("+")) {
    a.value = static_cast<int64_t>(expect_integer());
  }
  return a;
}

Arg Parser::parse_word_arg(std::string_view word) {
  Arg a;
  if (word == "_") return a;
  a.kind = Arg::kRegister;
  a.value = find_register(word);
  if (a.value >= 0) return a;
  a.value = 0;
  a.kind = Arg::kSymbol;
  a.name = std::string(word);
  if (word == "WARP_SZ") {
    a.kind = Arg::kImmediate;
    a.value = 32;
  } else if (word[0] == '%') {
    if (!is_special_register(word)) fail("register '" + a.name + "' is not declared");
    a.kind = Arg::kSpecial;
  } else if (std::string local = find_local(word); !local.empty()) {
    a.name = local;
  }
  return a;
}

Arg Parser::parse_number(std::string_view text, bool minus) {
  Arg a;
  std::string s(text);
  char* end = nullptr;
  errno = 0;
  if (s.size() > 2 && s[0] == '0' && (s[1] == 'f' || s[1] == 'F')) {
    a.kind = Arg::kFloat32;
    a.value = static_cast<int64_t>(std::strtoull(s.c_str() + 2, &end, 16));
    if (minus) a.value ^= 0x80000000;
  } else if (s.size() > 2 && s[0] == '0' && (s[1] == 'd' || s[1] == 'D')) {
    a.kind = Arg::kFloat64;
    a.value = static_cast<int64_t>(std::strtoull(s.c_str() + 2, &end, 16));
    if (minus) a.value ^= INT64_MIN;
  } else if (s.find('.') != std::string::npos) {
    double d = std::strtod(s.c_str(), &end);
    if (minus) d = -d;
    a.kind = Arg::kFloat64;
    std::memcpy(&a.value, &d, 8);
  } else {
    a.kind = Arg::kImmediate;
    bool binary = s.size() > 2 && s[0] == '0' && (s[1] == 'b' || s[1] == 'B');
    uint64_t v = std::strtoull(s.c_str() + (binary ? 2 : 0), &end, binary ? 2 : 0);
    if (*end == 'U') ++end;
    a.value = static_cast<int64_t>(minus ? 0 - v : v);
  }
  if (*end || errno == ERANGE) fail("bad number '" + s + "'");
  return a;
}

// [reg+4], [symbol-8], [64]
Arg Parser::parse_address() {
  Arg a;
  a.kind = Arg::kAddress;
  if (lexer_.peek().kind == Token::kWord) {
    a.items.push_back(parse_word_arg(lexer_.next().text));
  } else {
    bool minus = accept("-");
    if (lexer_.peek().kind != Token::kNumber) fail("expected an address");
    a.value = parse_number(lexer_.next().text, minus).value;
  }
  while (!lexer_.peek().is("]")) {
    bool minus = accept("-");
    if (!minus) expect("+");
    minus ^= accept("-");
    if (lexer_.peek().kind != Token::kNumber) fail("expected an offset");
    a.value += parse_number(lexer_.next().text, minus).value;
  }
  expect("]");
  return a;
}

int Parser::find_register(std::string_view name) const {
  size_t digits = name.size();
  while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9') --digits;
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    if (auto it = scope->names.find(std::string(name)); it != scope->names.end()) return it->second;
    if (digits == name.size() || name.size() - digits > 7) continue;
    auto it = scope->ranges.find(std::string(name.substr(0, digits)));
    if (it == scope->ranges.end()) continue;
    int index = std::atoi(std::string(name.substr(digits)).c_str());
    if (index < it->second.count) return it->second.base + index;
  }
  return -1;
}

std::string Parser::find_local(std::string_view name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    auto it = scope->locals.find(std::string(name));
    if (it != scope->locals.end()) return it->second;
  }
  return {};
}

}  // namespace rnk::emu
