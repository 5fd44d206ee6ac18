// Chat templates of llama.cpp's common/ library.
#include "chat.h"
#include "log.h"

#if !__has_include("json.h")
#include <nlohmann/json.hpp>
#endif

#include <memory>
#include <vector>

#include "guard.hpp"

using shim::fail;
using shim::guarded;

// common/ changed its JSON type between the revisions that we build against.
#if __has_include("json.h")
using json_type = common_json;
#else
using json_type = nlohmann::ordered_json;
#endif

struct shim_chat {
    common_chat_templates_ptr templates;
};

// Reads one answer. common/ reads all of it again each time.
struct shim_chat_parser {
    common_chat_parser_params params;
    std::vector<std::string>  marks;
    std::string               text;
    common_chat_msg           answer;
};

static shim_text view(const std::string & text) { return { text.data(), text.size() }; }

// common/ writes its log to this process's stdout and stderr; what fails there also throws, so nothing is lost.
static void silence_common_log() {
    static const bool once = [] {
        common_log_set_verbosity_thold(-1);
        return true;
    }();
    (void) once;
}

// A JSON array of strings, escaped by hand since the two JSON types build arrays in different ways.
static std::string json_array(const std::vector<std::string> & items) {
    static const char hex[] = "0123456789abcdef";
    std::string       out   = "[";
    for (const std::string & item : items) {
        out += out.size() > 1 ? ",\"" : "\"";
        for (const char raw : item) {
            const auto c = static_cast<unsigned char>(raw);
            if (c == '"' || c == '\\') {
                out += '\\';
                out += raw;
            } else if (c < 0x20) {
                out += "\\u00";
                out += hex[c >> 4];
                out += hex[c & 15];
            } else {
                out += raw;
            }
        }
        out += '"';
    }
    return out + "]";
}

extern "C" {

int shim_chat_init(const llama_model * model, const char * source, shim_chat ** out) noexcept {
    return guarded([&] {
        silence_common_log();
        auto chat       = std::make_unique<shim_chat>();
        chat->templates = common_chat_templates_init(model, source != nullptr ? source : "");
        if (chat->templates == nullptr) {
            return fail(SHIM_REFUSED, "the chat template does not parse");
        }
        *out = chat.release();
        return int(SHIM_OK);
    });
}

void shim_chat_free(shim_chat * chat) noexcept { delete chat; }

int shim_chat_render(const shim_chat * chat, const shim_chat_request * request, char ** prompt, char ** stops,
                     shim_chat_parser ** parser) noexcept {
    return guarded([&] {
        common_chat_templates_inputs inputs;
        inputs.messages              = common_chat_msgs_parse_oaicompat(json_type::parse(request->messages));
        inputs.add_generation_prompt = request->answer;
        inputs.use_jinja             = true;
        inputs.enable_thinking       = request->thinking;
        inputs.parallel_tool_calls   = request->parallel_calls;
        inputs.reasoning_format      = request->parse ? COMMON_REASONING_FORMAT_AUTO : COMMON_REASONING_FORMAT_NONE;
        // Else the tools' schemas would become a grammar, which takes long for some and overflows the stack for others.
        inputs.tool_choice           = COMMON_CHAT_TOOL_CHOICE_NONE;
        if (request->tools != nullptr) {
            inputs.tools = common_chat_tools_parse_oaicompat(json_type::parse(request->tools));
        }
        for (size_t i = 0; i < request->n_variables; i++) {
            inputs.chat_template_kwargs[request->names[i]] = request->values[i];
        }
        common_chat_params params = common_chat_templates_apply(chat->templates.get(), inputs);
        const std::string  rendered  = params.prompt;
        if (request->parse && request->allow_calls && request->outlines != nullptr) {
            inputs.tools       = common_chat_tools_parse_oaicompat(json_type::parse(request->outlines));
            inputs.tool_choice = COMMON_CHAT_TOOL_CHOICE_AUTO;
            params             = common_chat_templates_apply(chat->templates.get(), inputs);
        }

        std::unique_ptr<shim_chat_parser> reader;
        if (request->parse && (params.supports_thinking || (!inputs.tools.empty() && request->allow_calls))) {
            reader                          = std::make_unique<shim_chat_parser>();
            reader->params                  = common_chat_parser_params(params);
            reader->params.reasoning_format = inputs.reasoning_format;
            reader->params.parser.load(params.parser);
            reader->marks = params.preserved_tokens;
        }
        std::unique_ptr<char, decltype(&shim_string_free)> text(shim::copy_string(rendered), shim_string_free);
        *stops  = shim::copy_string(json_array(params.additional_stops));
        *prompt = text.release();
        *parser = reader.release();
        return SHIM_OK;
    });
}

int shim_chat_knows_tools(const shim_chat * chat, bool * out) noexcept {
    return guarded([&] {
        const std::map<std::string, bool> caps = common_chat_templates_get_caps(chat->templates.get());
        const auto                        has  = [&](const char * name) {
            const auto found = caps.find(name);
            return found != caps.end() && found->second;
        };
        *out = has("supports_tools") && has("supports_tool_calls");
        return SHIM_OK;
    });
}

int shim_chat_parse(shim_chat_parser * parser, const char * more, size_t len, bool partial, shim_chat_answer * out) noexcept {
    return guarded([&] {
        parser->text.append(more, len);
        parser->answer = common_chat_parse(parser->text, partial, parser->params);
        bool complete  = false;
        if (!partial) {
            // common/ forgives what is missing at the end also where nothing will follow.
            common_peg_parse_context context(parser->params.generation_prompt + parser->text);
            const auto               strict = parser->params.parser.parse(context);
            complete                        = !strict.fail() && strict.end == context.input.size();
        }
        *out = { view(parser->answer.reasoning_content), view(parser->answer.content), parser->answer.tool_calls.size(), complete };
        return SHIM_OK;
    });
}

int shim_chat_marks(const shim_chat_parser * parser, char ** marks) noexcept {
    return guarded([&] {
        *marks = shim::copy_string(json_array(parser->marks));
        return SHIM_OK;
    });
}

int shim_chat_call(const shim_chat_parser * parser, size_t index, struct shim_chat_call * out) noexcept {
    return guarded([&] {
        const common_chat_tool_call & call = parser->answer.tool_calls.at(index);
        *out                               = { view(call.name), view(call.arguments) };
        return SHIM_OK;
    });
}

int shim_chat_parser_again(const shim_chat_parser * parser, shim_chat_parser ** out) noexcept {
    return guarded([&] {
        auto other    = std::make_unique<shim_chat_parser>();
        other->params = parser->params;
        other->marks  = parser->marks;
        *out          = other.release();
        return SHIM_OK;
    });
}

void shim_chat_parser_free(shim_chat_parser * parser) noexcept { delete parser; }

int shim_chat_render_builtin(const char * name, const char * const * roles, const char * const * contents, size_t n,
                             bool add_generation_prompt, char ** prompt) noexcept {
    return guarded([&] {
        std::vector<llama_chat_message> chat(n);
        for (size_t i = 0; i < n; i++) {
            chat[i] = { roles[i], contents[i] };
        }
        std::string text(1024, '\0');
        int32_t     len = llama_chat_apply_template(name, chat.data(), n, add_generation_prompt, text.data(), int32_t(text.size()));
        if (len > int32_t(text.size())) {
            text.resize(size_t(len));
            len = llama_chat_apply_template(name, chat.data(), n, add_generation_prompt, text.data(), int32_t(text.size()));
        }
        if (len < 0) {
            return fail(SHIM_REFUSED, "llama.cpp has no chat template of this name");
        }
        text.resize(size_t(len));
        *prompt = shim::copy_string(text);
        return int(SHIM_OK);
    });
}

int shim_chat_builtin_names(char ** names) noexcept {
    return guarded([&] {
        std::vector<const char *> list(size_t(llama_chat_builtin_templates(nullptr, 0)));
        llama_chat_builtin_templates(list.data(), list.size());
        *names = shim::copy_string(json_array({ list.begin(), list.end() }));
        return SHIM_OK;
    });
}

} // extern "C"
