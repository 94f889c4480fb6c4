#include "parser.h"

#include <cstdlib>
#include <cstring>

namespace rnk::emu {
namespace {

constexpr uint64_t kMaxVariableBytes = uint64_t{1} << 30;

}  // namespace

std::unique_ptr<Module> parse_module(std::string text) {
  auto module = std::make_unique<Module>();
  if (size_t nul = text.find('\0'); nul != std::string::npos) text.resize(nul);
  module->text = std::move(text);
  Parser(*module).parse();
  return module;
}

void Parser::fail(const std::string& what) const {
  throw Error("parse", "PTX line " + std::to_string(lexer_.peek().line) + ": " + what + ", at '" +
                           std::string(lexer_.peek().text) + "'");
}

bool Parser::accept(std::string_view s) {
  if (!lexer_.peek().is(s) || lexer_.peek().kind == Token::kEnd) return false;
  lexer_.next();
  return true;
}

void Parser::expect(std::string_view s) {
  if (!accept(s)) fail("expected '" + std::string(s) + "'");
}

std::string Parser::expect_word() {
  if (lexer_.peek().kind != Token::kWord) fail("expected a name");
  return std::string(lexer_.next().text);
}

uint64_t Parser::expect_integer() {
  if (lexer_.peek().kind != Token::kNumber) fail("expected a number");
  Arg a = parse_number(lexer_.next().text, false);
  if (a.kind != Arg::kImmediate || a.value < 0) fail("expected a non-negative integer");
  return static_cast<uint64_t>(a.value);
}

void Parser::parse() {
  bool versioned = false;
  while (lexer_.peek().kind != Token::kEnd) {
    if (lexer_.peek().kind != Token::kWord || lexer_.peek().text[0] != '.')
      fail("expected a directive");
    std::string_view word = lexer_.next().text;
    if (!versioned && word != ".version") fail("not PTX: it must begin with .version");
    versioned = true;
    parse_directive(word);
  }
  if (!versioned) fail("not PTX: empty text");
}

void Parser::parse_directive(std::string_view word) {
  if (word == ".version") {
    lexer_.next();
  } else if (word == ".target") {
    module_.target = expect_word();
    while (accept(",")) expect_word();
  } else if (word == ".address_size") {
    if (expect_integer() != 64) fail("only 64-bit PTX runs here");
  } else if (word == ".file") {
    parse_file();
  } else if (word == ".section") {
    skip_section();
  } else if (word == ".pragma" || word == ".alias") {
    while (!accept(";")) {
      if (lexer_.next().kind == Token::kEnd) fail("expected ';'");
    }
  } else {
    bool is_extern = false;
    while (word == ".visible" || word == ".extern" || word == ".weak" || word == ".common") {
      is_extern |= word == ".extern";
      if (lexer_.peek().kind != Token::kWord) fail("expected a directive");
      word = lexer_.next().text;
    }
    if (word == ".entry" || word == ".func") return parse_function(word == ".entry");
    Space space;
    if (word == ".global")
      space = Space::kGlobal;
    else if (word == ".const")
      space = Space::kConst;
    else if (word == ".shared")
      space = Space::kShared;
    else
      fail("unknown directive '" + std::string(word) + "'");
    Variable v = parse_variable(space, true);
    v.is_extern = is_extern;
    expect(";");
    if (!module_.variable_index.emplace(v.name, module_.variables.size()).second)
      fail("variable '" + v.name + "' is declared twice");
    module_.variables.push_back(std::move(v));
  }
}

void Parser::parse_file() {
  int index = static_cast<int>(expect_integer());
  if (lexer_.peek().kind != Token::kString) fail("expected a file name");
  module_.files[index] = std::string(lexer_.next().text);
  while (accept(",")) expect_integer();
}

void Parser::skip_section() {
  while (!accept("{")) {
    if (lexer_.next().kind == Token::kEnd) fail("section without body");
  }
  while (!accept("}")) {
    if (lexer_.next().kind == Token::kEnd) fail("section without end");
  }
}

void Parser::parse_function(bool is_entry) {
  auto owned = std::make_unique<Function>();
  Function& f = *owned;
  f.is_entry = is_entry;
  f.line = lexer_.peek().line;
  source_file_ = source_line_ = 0;
  if (!is_entry && lexer_.peek().is("(")) f.results = parse_params();
  f.name = expect_word();
  if (lexer_.peek().is("(")) f.params = parse_params();
  parse_function_attributes(f);
  if (!accept(";")) {
    f.has_body = true;
    function_ = &f;
    parse_body(f);
    function_ = nullptr;
  }
  Function*& slot = module_.function_index[f.name];
  if (slot && slot->has_body && f.has_body) fail("function '" + f.name + "' is defined twice");
  if (!slot || f.has_body) slot = &f;
  module_.functions.push_back(std::move(owned));
}

void Parser::parse_function_attributes(Function& f) {
  while (lexer_.peek().kind == Token::kWord) {
    std::string word = expect_word();
    if (word == ".reqntid" || word == ".maxntid" || word == ".reqnctapercluster") {
      std::array<uint32_t, 3> dims{1, 1, 1};
      for (int i = 0; i < 3; ++i) {
        dims[i] = static_cast<uint32_t>(expect_integer());
        if (i == 2 || !accept(",")) break;
      }
      if (word == ".reqntid") f.required_threads = dims;
      if (word == ".maxntid") f.max_threads = dims;
    } else if (word == ".minnctapersm" || word == ".maxnreg" || word == ".maxnctapersm" ||
               word == ".maxclusterrank") {
      expect_integer();
    } else if (word == ".pragma") {
      lexer_.next();
      expect(";");
    } else if (word != ".noreturn" && word != ".explicitcluster" && word != ".blocksareclusters") {
      fail("unknown function attribute '" + word + "'");
    }
  }
}

std::vector<Variable> Parser::parse_params() {
  std::vector<Variable> params;
  expect("(");
  if (accept(")")) return params;
  do {
    if (!accept(".param") && !lexer_.peek().is(".reg")) fail("expected .param");
    params.push_back(parse_variable(Space::kParam, false));
    if (params.size() > 4096) fail("too many parameters");
  } while (accept(","));
  expect(")");
  return params;
}

// .align 4 .b8 name[16] = {...}; pointer attributes of kernel parameters are read and dropped.
Variable Parser::parse_variable(Space space, bool allow_initialiser) {
  Variable v;
  v.space = space;
  while (lexer_.peek().kind == Token::kWord && lexer_.peek().text[0] == '.') {
    std::string_view word = lexer_.next().text.substr(1);
    if (word == "align") {
      v.align = static_cast<uint32_t>(expect_integer());
      if (v.align == 0 || (v.align & (v.align - 1)) || v.align > 4096) fail("bad alignment");
    } else if (parse_type(word) != Type::kNone) {
      v.type = parse_type(word);
    } else if (word == "ptr") {
      while (lexer_.peek().kind == Token::kWord && lexer_.peek().text[0] == '.') {
        if (lexer_.next().text == ".align") expect_integer();
      }
    } else if (word != "attribute" && word != "managed") {
      fail("unknown variable attribute '." + std::string(word) + "'");
    }
  }
  if (v.type == Type::kNone) fail("a variable needs a type");
  v.name = expect_word();
  v.bytes = size_of(v.type);
  v.align = std::max<uint32_t>(v.align, v.type == Type::kB8 ? 1 : size_of(v.type));
  parse_dimensions(v);
  if (allow_initialiser && accept("=")) parse_initialiser(v);
  return v;
}

void Parser::parse_dimensions(Variable& v) {
  while (accept("[")) {
    if (accept("]")) {
      v.is_unsized = true;
      v.bytes = 0;
      continue;
    }
    uint64_t n = expect_integer();
    if (n > kMaxVariableBytes || v.bytes * n > kMaxVariableBytes) fail("variable is too large");
    v.bytes *= n;
    expect("]");
  }
}

void Parser::parse_initialiser(Variable& v) {
  int depth = 0;
  do {
    while (accept("{")) ++depth;
    if (!lexer_.peek().is("}")) append_initialiser_value(v);
    while (depth > 0 && accept("}")) --depth;
  } while (depth > 0 && accept(","));
  if (depth) fail("expected '}'");
  if (v.is_unsized) v.bytes = v.init.size();
  v.is_unsized = false;
  if (v.init.size() > v.bytes) fail("initialiser is longer than the variable");
  v.init.resize(v.bytes);
}

void Parser::append_initialiser_value(Variable& v) {
  int size = size_of(v.type);
  uint64_t bits = 0;
  bool minus = accept("-");
  if (lexer_.peek().kind == Token::kNumber) {
    Arg a = parse_number(lexer_.next().text, minus);
    bits = static_cast<uint64_t>(a.value);
  } else {
    bool generic = accept("generic");
    if (generic) expect("(");
    Variable::Reference ref{v.init.size(), expect_word(), 0, size};
    if (generic) expect(")");
    if (accept("+")) ref.addend = static_cast<int64_t>(expect_integer());
    v.references.push_back(ref);
  }
  const auto* bytes = reinterpret_cast<const uint8_t*>(&bits);
  v.init.insert(v.init.end(), bytes, bytes + std::min<int>(size, 8));
}

}  // namespace rnk::emu
